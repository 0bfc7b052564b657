// The site's search. Its index is a script, since a page that was opened from a file may not fetch anything
(() => {
  const root = document.querySelector('meta[name="smalldocs:offset"]').content;
  const input = document.getElementById('site-search'), list = document.getElementById('site-results');
  let chosen = -1;

  // The index, loaded when it is first needed
  let index = null;
  const load = () => index ||= new Promise((done) => {
    const script = document.createElement('script');
    script.src = root + 'search-index.js';
    script.onload = () => done(window.siteSections.map(([href, page, title, text]) => ({href, page, title, text,
      lower: {page: page.toLowerCase(), title: title.toLowerCase(), text: text.toLowerCase()}})));
    document.head.append(script);
  });

  const begins = (text, word) => {  // Does a word of `text` begin with `word`?
    const at = text.indexOf(word);
    if (at < 0) return false;
    return !/[\p{L}\p{N}]/u.test(text[at-1] || ' ') || begins(text.slice(at+1), word);
  };
  const times = (text, word) => text.split(word).length - 1;

  // How well a section answers for one word: its heading counts most, then its page's title, then its text
  const worth = ({page, title, text}, word) => {
    let points = Math.min(5, times(text, word)) + (begins(text, word) ? 5 : 0);
    if (title.includes(word)) points += title == word ? 100 : begins(title, word) ? 40 : 15;
    if (page.includes(word)) points += (title ? 5 : 30) + (begins(page, word) ? 5 : 0);
    return points;
  };

  // The best sections for the words: those with all of them, else those with most
  const find = (sections, words) => {
    const hits = sections.map((o) => {
      const points = words.map((w) => worth(o.lower, w));
      return {section: o, found: points.filter((p) => p).length, points: points.reduce((a, b) => a + b)};
    });
    const most = Math.max(...hits.map((o) => o.found));
    if (!most) return [];
    return hits.filter((o) => o.found == most).sort((a, b) => b.points - a.points).slice(0, 12).map((o) => o.section);
  };

  // `text` with `words` marked, as children of `node`
  const mark = (node, text, words) => {
    const escaped = words.map((w) => w.replace(/[.*+?^${}()|[\]\\]/g, '\\$&'));
    text.split(new RegExp(`(${escaped.join('|')})`, 'i')).forEach((part, i) => {
      const piece = i%2 ? document.createElement('mark') : document.createTextNode('');
      piece.textContent = part;
      node.append(piece);
    });
    return node;
  };

  const around = (text, words) => {  // Some words of `text` about the place where the first of `words` stands
    const places = words.map((w) => text.toLowerCase().indexOf(w)).filter((i) => i >= 0);
    let start = places.length ? Math.max(0, Math.min(...places)-50) : 0;
    if (start) start = text.indexOf(' ', start) + 1;
    let end = start+155 < text.length ? text.lastIndexOf(' ', start+155) : text.length;
    if (end <= start) end = start+155;
    return (start ? '… ' : '') + text.slice(start, end) + (end < text.length ? ' …' : '');
  };

  const element = (kind, name, ...children) => {
    const o = document.createElement(kind);
    o.className = name;
    o.append(...children);
    return o;
  };
  const result = ({href, page, title, text}, words, i) => {
    const where = title ? element('span', 'site-page', page) : '';
    const head = element('span', 'site-head', mark(element('b', ''), title || page, words), where);
    const o = element('a', 'site-result', head, mark(element('span', 'site-text'), around(text, words), words));
    o.href = root + href;
    o.id = `site-result-${i}`;
    o.setAttribute('role', 'option');
    o.addEventListener('click', close);
    return o;
  };

  const open = (...children) => {
    list.replaceChildren(...children);
    list.hidden = false;
    input.setAttribute('aria-expanded', 'true');
    choose(children[0].href ? 0 : -1);
  };
  const close = () => {
    list.hidden = true;
    input.setAttribute('aria-expanded', 'false');
    input.removeAttribute('aria-activedescendant');
  };
  const choose = (i) => {
    const all = [...list.querySelectorAll('a')];
    chosen = all.length ? (i+all.length) % all.length : -1;
    all.forEach((o, k) => o.setAttribute('aria-selected', k == chosen));
    if (chosen < 0) return;
    input.setAttribute('aria-activedescendant', all[chosen].id);
    all[chosen].scrollIntoView({block: 'nearest'});
  };
  const search = async () => {
    const text = input.value.trim(), words = text.toLowerCase().split(/\s+/);
    if (text.length < 2) { close(); return; }
    const found = find(await load(), words);
    if (input.value.trim() != text) return; // more was typed while the index was loading
    if (found.length) open(...found.map((o, i) => result(o, words, i)));
    else open(element('div', 'site-none', `Nothing here has “${text}”.`));
  };

  input.addEventListener('input', search);
  input.addEventListener('focus', () => { if (input.value) search(); });
  input.addEventListener('keydown', (e) => {
    if (e.key == 'Escape') { close(); input.blur(); }
    if (list.hidden) return;
    if (e.key == 'ArrowDown') { e.preventDefault(); choose(chosen+1); }
    if (e.key == 'ArrowUp') { e.preventDefault(); choose(chosen-1); }
    if (e.key == 'Enter' && chosen >= 0) { e.preventDefault(); list.querySelectorAll('a')[chosen].click(); }
  });
  document.addEventListener('click', (e) => { if (!e.target.closest('.site-search')) close(); });
  document.addEventListener('keydown', (e) => {
    const typing = /^(INPUT|TEXTAREA|SELECT)$/.test(document.activeElement.tagName);
    const asked = e.key == '/' && !typing && !e.ctrlKey && !e.metaKey || e.key == 'k' && (e.ctrlKey || e.metaKey);
    if (asked) { e.preventDefault(); input.focus(); input.select(); }
  });
})();

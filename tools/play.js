// Loaded by JupyterLab when tools/play.py starts it: runs the page that is open, and leaves only text and explorers
const style = `
  .jp-CodeCell .jp-Cell-inputWrapper, .jp-CodeCell.jp-mod-noOutputs, .jp-Notebook .jp-InputPrompt,
  .jp-Notebook .jp-OutputPrompt, .jp-Notebook .jp-OutputArea-promptOverlay, .jp-Notebook .jp-Collapser,
  .jp-Notebook .jp-Notebook-footer, .jp-NotebookPanel-toolbar, .jp-cell-toolbar { display: none !important }
  .jp-Notebook .jp-OutputArea-child, .jp-Notebook .jp-OutputArea-output { overflow: visible !important }
  #loading { position: fixed; right: 1.5em; bottom: 1.5em; padding: .7em 1.2em; background: #ffd; z-index: 99 }`;

function busy(message) {
  const o = document.getElementById('loading') || document.body.appendChild(document.createElement('div'));
  o.id = 'loading';
  o.textContent = message;
  return o }

async function opened(app) { // the notebook on the page, once its kernel answers
  for (;;) {
    const panel = app.shell.currentWidget;
    if (panel?.content?.model && panel.sessionContext?.session?.kernel?.status == 'idle') return panel;
    await new Promise(done => setTimeout(done, 100)) } }

async function activate(app) {
  document.head.appendChild(document.createElement('style')).textContent = style;
  const note = busy('Loading the explorers: some ten seconds');
  for (const side of ['left', 'right']) app.commands.execute('application:toggle-side-tabbar', { side });
  await opened(app);
  await app.commands.execute('notebook:run-all-cells');
  note.remove() }

const plugin = { id: 'snnkit-play:run', autoStart: true, activate: app => { app.restored.then(() => activate(app)) } };
window._JUPYTERLAB = window._JUPYTERLAB || {};
window._JUPYTERLAB['snnkit-play'] = { init: () => {}, get: async () => () => plugin };

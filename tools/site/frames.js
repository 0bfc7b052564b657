{ // Under the pictures of one explorer: its slider, which chooses the one that is seen
  const figure = document.currentScript.parentElement;
  const label = figure.querySelector('label'), slider = label.querySelector('input');
  const pictures = [...figure.querySelectorAll('img')], values = slider.dataset.values.split(' ');
  const show = () => {
    pictures.forEach((o, i) => { o.hidden = i != slider.value; });
    label.querySelector('output').textContent = values[slider.value];
    slider.setAttribute('aria-valuetext', values[slider.value]);
  };
  slider.addEventListener('input', show);
  label.hidden = false;
  show(); // a browser that comes back to the page may have kept where the slider was
}

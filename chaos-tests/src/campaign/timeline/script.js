// Zooming, and what the pointer is at. Everything else works without.
const box = document.querySelector('.scroll'), run = document.querySelector('.run');
const cursor = document.querySelector('.cursor'), about = document.querySelector('.about');
const length = Number(run.dataset.length), names = run.querySelector('.name').offsetWidth;
let zoom = 1;
function zoomBy(factor, x) {
  const width = box.clientWidth - names, part = (box.scrollLeft + x - names) / (width * zoom);
  zoom = factor ? Math.min(500, Math.max(1, zoom * factor)) : 1;
  run.style.setProperty('--zoom', zoom);
  box.scrollLeft = part * width * zoom - x + names;
}
document.querySelectorAll('[data-zoom]').forEach(button =>
  button.addEventListener('click', () => zoomBy(Number(button.dataset.zoom), (box.clientWidth + names) / 2)));
box.addEventListener('wheel', event => {
  if (!event.ctrlKey) return;
  event.preventDefault();
  zoomBy(event.deltaY < 0 ? 1.3 : 1 / 1.3, event.clientX - box.getBoundingClientRect().left);
}, { passive: false });
run.addEventListener('mousemove', event => {
  const left = run.getBoundingClientRect().left, width = run.offsetWidth - names;
  const ms = (event.clientX - left - names) / width * length;
  cursor.style.display = ms < 0 ? 'none' : 'block';
  cursor.style.left = event.clientX - left + 'px';
  const strip = event.target.closest('.strip'), named = event.target.closest('[title]');
  let what = named ? named.title : '';
  if (strip && ms >= 0) {
    const every = Number(strip.dataset.every), column = Math.floor(ms / every);
    const counts = (strip.dataset.counts.split(' ')[column] || '').split(',');
    what = strip.dataset.names.split(',').map((name, index) => name && (counts[index] || 0) + ' ' + name)
      .filter(Boolean).join(', ');
  }
  about.textContent = (ms < 0 ? '' : (ms / 1000).toFixed(1) + ' s   ') + what;
});

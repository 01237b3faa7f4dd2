'use strict';
// Tables sort by the column whose head is pressed; everything else on the page works without this script.
(() => {
  const keyOf = (row, column) => {
    const cell = row.cells[column];
    return cell.dataset.key === undefined ? cell.textContent.trim() : Number(cell.dataset.key);
  };
  const compare = (first, second) => {
    if (typeof first === 'number' && typeof second === 'number') return first - second;
    if (typeof first !== typeof second) return typeof first === 'number' ? -1 : 1;
    return first.localeCompare(second, undefined, { numeric: true });
  };
  const sort = (head) => {
    const table = head.closest('table');
    const direction = head.getAttribute('aria-sort') === 'ascending' ? 'descending' : 'ascending';
    for (const other of head.parentNode.cells) other.removeAttribute('aria-sort');
    head.setAttribute('aria-sort', direction);
    const body = table.tBodies[0];
    const rows = Array.from(body.rows);
    const sign = direction === 'ascending' ? 1 : -1;
    rows.sort((first, second) => sign * compare(keyOf(first, head.cellIndex), keyOf(second, head.cellIndex)));
    body.append(...rows);
  };
  for (const button of document.querySelectorAll('table.sortable thead button')) {
    button.addEventListener('click', () => sort(button.closest('th')));
  }
  for (const graph of document.querySelectorAll('figure.graph')) {
    for (const [box, name, isShown] of [['show-labels', 'without-labels', false], ['fit-width', 'fitted', true]]) {
      const control = graph.querySelector(`.${box}`);
      control.addEventListener('change', () => graph.classList.toggle(name, control.checked === isShown));
    }
    // The focus of a wide graph is what a reader looks for first.
    const scroll = graph.querySelector('.scroll');
    const focus = scroll.querySelector('.focus');
    if (focus) {
      const place = focus.getBoundingClientRect();
      const frame = scroll.getBoundingClientRect();
      scroll.scrollLeft += place.left + place.width / 2 - frame.left - frame.width / 2;
      scroll.scrollTop += place.top + place.height / 2 - frame.top - frame.height / 2;
    }
  }
  // On paper everything is open.
  window.addEventListener('beforeprint', () => {
    for (const part of document.querySelectorAll('details')) part.open = true;
  });
})();

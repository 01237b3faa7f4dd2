// The pointer reads a plot, and each plot can be enlarged and saved; without this script it is still a plot.
(() => {
  const write = (value, axis) => {
    const word = axis.words && axis.words[String(value)];
    return word === undefined ? String(Number(value.toPrecision(5))) : word;
  };
  const save = (name, type, content) => {
    const link = document.createElement('a');
    link.download = name;
    link.href = URL.createObjectURL(new Blob([content], { type }));
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  };
  const escaped = (text) => (/[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
  const tableOf = (panels) => {
    const lines = ['panel,x_label,y_label,series,x,y'];
    panels.forEach((panel, number) => {
      for (const [label, xs, ys] of panel.series) {
        xs.forEach((x, index) => {
          lines.push([number + 1, panel.x.label, panel.y.label, label, x, ys[index]].map(String).map(escaped).join(','));
        });
      }
    });
    return lines.join('\n') + '\n';
  };
  const standAlone = (svg) => {
    const copy = svg.cloneNode(true);
    const [, , width, height] = copy.getAttribute('viewBox').split(' ').map(Number);
    copy.setAttribute('width', width);
    copy.setAttribute('height', height);
    return [new XMLSerializer().serializeToString(copy), width, height];
  };
  const saveImage = (name, svg) => {
    const [text, width, height] = standAlone(svg);
    const image = new Image();
    image.onload = () => {
      const canvas = document.createElement('canvas');
      [canvas.width, canvas.height] = [3 * width, 3 * height];
      const paper = canvas.getContext('2d');
      paper.fillStyle = '#ffffff';
      paper.fillRect(0, 0, canvas.width, canvas.height);
      paper.drawImage(image, 0, 0, canvas.width, canvas.height);
      canvas.toBlob((blob) => save(`${name}.png`, 'image/png', blob));
    };
    image.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(text)}`;
  };
  const enlarge = (svg) => {
    const dialog = document.createElement('dialog');
    dialog.className = 'enlarged';
    const close = document.createElement('button');
    close.textContent = 'Close';
    close.addEventListener('click', () => dialog.close());
    dialog.addEventListener('close', () => dialog.remove());
    const copy = svg.cloneNode(true);
    copy.removeAttribute('width');
    copy.removeAttribute('height');
    dialog.append(close, copy);
    document.body.append(dialog);
    dialog.showModal();
  };
  const at = (value, { limits: [low, high], is_log: isLog }) => {
    const scale = isLog ? Math.log : (number) => number;
    return (scale(value) - scale(low)) / (scale(high) - scale(low));
  };
  const nearest = (panel, x, y) => {
    const [left, top, right, bottom] = panel.box;
    let best = null;
    for (const [label, xs, ys] of panel.series) {
      xs.forEach((value, index) => {
        const across = left + (right - left) * at(value, panel.x);
        const down = bottom - (bottom - top) * at(ys[index], panel.y);
        const distance = Math.hypot(across - x, down - y);
        if (distance < 14 && (best === null || distance < best.distance)) {
          best = { distance, label, x: value, y: ys[index], across, down };
        }
      });
    }
    return best;
  };
  const point = (figure, svg, panels) => {
    const box = document.createElement('div');
    box.className = 'pointed';
    box.hidden = true;
    figure.append(box);
    const ring = document.createElementNS('http://www.w3.org/2000/svg', 'circle');
    ring.setAttribute('r', '6');
    ring.setAttribute('style', 'fill: none; stroke: var(--ink); stroke-width: 1.3; display: none; pointer-events: none');
    svg.append(ring);
    const leave = () => { box.hidden = true; ring.style.display = 'none'; };
    svg.addEventListener('pointermove', (event) => {
      const frame = svg.getBoundingClientRect();
      const [width, height] = panels[0].size;
      const x = (event.clientX - frame.left) * width / frame.width;
      const y = (event.clientY - frame.top) * height / frame.height;
      const panel = panels.find(({ box: [l, t, r, b] }) => x >= l - 5 && x <= r + 5 && y >= t - 5 && y <= b + 5);
      const found = panel && nearest(panel, x, y);
      if (!found) { leave(); return; }
      box.replaceChildren();
      if (found.label) {
        const name = document.createElement('b');
        name.textContent = found.label;
        box.append(name);
      }
      for (const [axis, value] of [[panel.x, found.x], [panel.y, found.y]]) {
        const line = document.createElement('div');
        line.textContent = `${axis.label ? `${axis.label}: ` : ''}${write(value, axis)}`;
        box.append(line);
      }
      ring.setAttribute('cx', found.across);
      ring.setAttribute('cy', found.down);
      ring.style.display = '';
      const home = figure.getBoundingClientRect();
      box.hidden = false;
      box.style.left = `${Math.min(event.clientX - home.left + 14, home.width - box.offsetWidth)}px`;
      box.style.top = `${event.clientY - home.top + 14}px`;
    });
    svg.addEventListener('pointerleave', leave);
  };
  for (const figure of document.querySelectorAll('figure.plot')) {
    const svg = figure.querySelector('svg');
    const told = figure.querySelector('script.readout');
    const panels = told ? JSON.parse(told.textContent) : [];
    const actions = {
      Enlarge: () => enlarge(svg),
      SVG: () => save(`${figure.id}.svg`, 'image/svg+xml', standAlone(svg)[0]),
      PNG: () => saveImage(figure.id, svg),
    };
    if (panels.length) {
      actions.CSV = () => save(`${figure.id}.csv`, 'text/csv', tableOf(panels));
      point(figure, svg, panels);
    }
    for (const [name, act] of Object.entries(actions)) {
      const button = document.createElement('button');
      button.type = 'button';
      button.textContent = name;
      button.addEventListener('click', act);
      figure.querySelector('.tools').append(button);
    }
  }
})();

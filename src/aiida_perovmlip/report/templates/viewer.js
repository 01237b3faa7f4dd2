// Structures as balls that can be turned: the far ones are drawn first.
(() => {
  const SHARE = 0.5; // radius of a ball over the covalent radius
  const turned = (view, angleX, angleY) => {
    const [cx, sx, cy, sy] = [Math.cos(angleX), Math.sin(angleX), Math.cos(angleY), Math.sin(angleY)];
    const about = [[cy, 0, sy], [sx * sy, cx, -sx * cy], [-cx * sy, sx, cx * cy]];
    return about.map((row) => [0, 1, 2].map((k) => row[0] * view[0][k] + row[1] * view[1][k] + row[2] * view[2][k]));
  };
  const seen = (view, centre, place) => {
    const shifted = place.map((part, axis) => part - centre[axis]);
    return view.map((row) => row[0] * shifted[0] + row[1] * shifted[1] + row[2] * shifted[2]);
  };
  const corners = (cell) => [0, 1, 2, 3, 4, 5, 6, 7].map((bits) => [0, 1, 2].map((axis) =>
    cell.reduce((sum, vector, index) => sum + ((bits >> index) & 1) * vector[axis], 0)));
  const start = (figure) => {
    const { elements, frames } = JSON.parse(figure.querySelector('script.scene').textContent);
    const canvas = figure.querySelector('canvas');
    const slider = figure.querySelector('.turn input');
    const paper = canvas.getContext('2d');
    const all = frames.flatMap((frame) => [...frame.positions, ...corners(frame.cell)]);
    const spans = [0, 1, 2].map((axis) => {
      const parts = all.map((place) => place[axis]);
      return [parts.reduce((a, b) => Math.min(a, b)), parts.reduce((a, b) => Math.max(a, b))];
    });
    const centre = spans.map(([low, high]) => (low + high) / 2);
    const reach = Math.max(1, Math.hypot(...spans.map(([low, high]) => high - low)) / 2);
    let view = turned([[1, 0, 0], [0, 1, 0], [0, 0, 1]], -1.35, 0.35);
    let zoom = 1;
    const draw = () => {
      const frame = frames[slider.value];
      const colours = getComputedStyle(document.documentElement);
      const [width, height] = [canvas.width, canvas.height];
      const scale = zoom * 0.47 * height / reach;
      const onPaper = (place) => {
        const [x, y, z] = seen(view, centre, place);
        return [width / 2 + scale * x, height / 2 - scale * y, z];
      };
      paper.clearRect(0, 0, width, height);
      paper.strokeStyle = colours.getPropertyValue('--muted');
      paper.lineWidth = 1;
      const edges = corners(frame.cell).map(onPaper);
      if (frame.cell.flat().some((part) => part !== 0)) {
        for (let one = 0; one < 8; one += 1) {
          for (const bit of [1, 2, 4]) {
            if (one & bit) continue;
            paper.beginPath();
            paper.moveTo(...edges[one].slice(0, 2));
            paper.lineTo(...edges[one | bit].slice(0, 2));
            paper.stroke();
          }
        }
      }
      const balls = frame.positions.map((place, index) => [onPaper(place), elements[frame.numbers[index]]]);
      balls.sort((first, second) => first[0][2] - second[0][2]);
      for (const [[x, y], [, colour, radius]] of balls) {
        const size = Math.max(1.5, SHARE * radius * scale);
        const shade = paper.createRadialGradient(x - size / 3, y - size / 3, size / 8, x, y, size);
        shade.addColorStop(0, '#ffffff');
        shade.addColorStop(0.45, colour);
        shade.addColorStop(1, colour);
        paper.fillStyle = shade;
        paper.strokeStyle = 'rgb(0 0 0 / 0.45)';
        paper.beginPath();
        paper.arc(x, y, size, 0, 2 * Math.PI);
        paper.fill();
        paper.stroke();
      }
      figure.querySelector('.title').textContent = frame.title;
    };
    const step = (by) => { slider.value = Number(slider.value) + by; draw(); };
    figure.querySelector('.before').addEventListener('click', () => step(-1));
    figure.querySelector('.after').addEventListener('click', () => step(1));
    slider.addEventListener('input', draw);
    canvas.addEventListener('pointermove', (event) => {
      if (!event.buttons) return;
      view = turned(view, event.movementY / 120, event.movementX / 120);
      draw();
    });
    canvas.addEventListener('pointerdown', (event) => canvas.setPointerCapture(event.pointerId));
    canvas.addEventListener('wheel', (event) => {
      if (!event.ctrlKey) return;
      event.preventDefault();
      zoom *= Math.exp(-event.deltaY / 400);
      draw();
    }, { passive: false });
    const keys = {
      ArrowLeft: [0, -0.1], ArrowRight: [0, 0.1], ArrowUp: [-0.1, 0], ArrowDown: [0.1, 0],
    };
    canvas.addEventListener('keydown', (event) => {
      if (event.key === '+' || event.key === '-') zoom *= event.key === '+' ? 1.15 : 1 / 1.15;
      else if (keys[event.key]) view = turned(view, ...keys[event.key]);
      else return;
      event.preventDefault();
      draw();
    });
    for (const [symbol, colour] of Object.values(elements)) {
      const name = document.createElement('span');
      const dot = document.createElement('i');
      dot.style.background = colour;
      name.append(dot, symbol);
      figure.querySelector('.elements').append(name);
    }
    matchMedia('(prefers-color-scheme: dark)').addEventListener('change', draw);
    draw();
  };
  document.querySelectorAll('figure.viewer').forEach(start);
})();

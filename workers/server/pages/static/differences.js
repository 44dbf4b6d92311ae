// The map of the differences of two builds: int8 scores on a grid, drawn in two colours (see difference_bytes).

const canvas = document.getElementById("differences");
const dark = matchMedia("(prefers-color-scheme: dark)");

async function load() {
  const answer = await fetch(canvas.dataset.map);
  if (!answer.ok) throw new Error(`the server answered ${answer.status}`);
  const buffer = await answer.arrayBuffer();
  const end = new Uint8Array(buffer).indexOf(10);
  const facts = JSON.parse(new TextDecoder().decode(buffer.slice(0, end)));
  if (!facts.grid) return;
  paint(facts.grid, new Int8Array(buffer.slice(end + 1)));
  dark.addEventListener("change", () => paint(facts.grid, new Int8Array(buffer.slice(end + 1))));
}

function paint(grid, scores) {
  const more = dark.matches ? [183, 163, 232] : [91, 63, 153];
  const less = dark.matches ? [241, 163, 64] : [179, 88, 6];
  canvas.width = canvas.height = grid;
  const image = new ImageData(grid, grid);
  scores.forEach((score, place) => {
    const row = grid - 1 - Math.floor(place / grid); // rows of the answer begin at the bottom
    const at = 4 * (row * grid + (place % grid));
    const colour = score > 0 ? more : less;
    for (let channel = 0; channel < 3; channel++) image.data[at + channel] = colour[channel];
    image.data[at + 3] = Math.abs(score) * 2;
  });
  canvas.getContext("2d").putImageData(image, 0, 0);
  canvas.dataset.drawn = "true";
}

if (canvas) load();

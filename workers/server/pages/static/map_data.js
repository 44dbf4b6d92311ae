// The answer of /map: a line of JSON, a grid of densities, then points, column after column (see map_bytes).

export async function fetchMap(address, signal) {
  const answer = await fetch(address, { signal, headers: { Accept: "application/octet-stream" } });
  if (!answer.ok) throw new Error(`the server answered ${answer.status}`);
  return parseMap(await answer.arrayBuffer());
}

function parseMap(buffer) {
  const bytes = new Uint8Array(buffer);
  const end = bytes.indexOf(10);
  const facts = JSON.parse(new TextDecoder().decode(bytes.subarray(0, end)));
  const cells = facts.grid * facts.grid;
  const n = facts.points || 0;
  let at = end + 1 + cells;
  const take = (Kind) => {
    const begin = at;
    at += n * Kind.BYTES_PER_ELEMENT;
    return new Kind(buffer.slice(begin, at)); // a copy: views must begin at whole elements; numbers are little-endian
  };
  const grid = bytes.subarray(end + 1, end + 1 + cells);
  if (!n) return { ...facts, grid: facts.grid, cells: grid, x: [], y: [], value: [], index: [] };
  return {
    ...facts,
    cells: grid,
    x: Float32Array.from(take(Uint16Array), (v) => v / 65535),
    y: Float32Array.from(take(Uint16Array), (v) => 1 - v / 65535),
    value: take(Uint16Array),
    index: take(Uint32Array),
  };
}

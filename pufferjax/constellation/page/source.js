// Where the runs come from: the server, or what was written into this page.

class Server {
  isLive = true;

  async #json(address, options) {
    const answer = await fetch(address, options);
    if (!answer.ok) throw new Error((await answer.text()).trim());
    return answer.json();
  }

  runs(since) {
    return this.#json(`/api/runs?since=${encodeURIComponent(since)}`);
  }

  run(id) {
    return this.#json(`/api/run/${encodeURIComponent(id)}`);
  }

  // {id: {step, seconds, values} or null}; of so many in all
  curves(ids, figure, total) {
    return this.#json("/api/curves", { method: "POST", body: JSON.stringify({ ids, figure, total }) });
  }

  image(id, image) {
    return `/api/image/${encodeURIComponent(id)}?name=${encodeURIComponent(image)}`;
  }

  imageName(image) {
    return image;
  }

  async svg() {
    return (await fetch("/page/data_flow.svg")).text();
  }
}

class Embedded {
  isLive = false;

  constructor(data) {
    this.data = data;
  }

  async runs() {
    return this.data.runs;
  }

  async run(id) {
    return this.data.details[id];
  }

  async curves(ids, figure) {
    const curves = {};
    for (const id of ids) {
      const all = this.data.details[id].curves;
      curves[id] = null;
      if (!all[figure] || !all.step) continue;
      const kept = all[figure].map((value, i) => i).filter((i) => all[figure][i] !== null);
      const pick = (curve) => kept.map((i) => curve?.[i] ?? null);
      curves[id] = { step: pick(all.step), seconds: pick(all.wall_seconds), values: pick(all[figure]) };
    }
    return curves;
  }

  image(id, image) {
    return image.data;
  }

  imageName(image) {
    return image.name;
  }

  async svg() {
    return this.data.svg;
  }
}

export function makeSource() {
  const embedded = document.getElementById("embedded");
  return embedded ? new Embedded(JSON.parse(embedded.textContent)) : new Server();
}

// Plays the film of the page: frames are tiles of grey pictures, which are coloured here, so that differences from the
// truth can be shown as well.
"use strict";
(() => {
  const place = document.getElementById("film");
  if (!place) return;
  const film = JSON.parse(document.getElementById("film-data").textContent);
  const { width, height, columns } = film;
  const find = (name) => place.querySelector(`[name=${name}]`);
  const [field, rate, slider, play, differ] = ["field", "rate", "frame", "play", "differ"].map(find);
  const tiles = place.querySelector(".tiles");
  const maps = Object.fromEntries(
    Object.entries(film.maps).map(([name, text]) => [name, text.match(/../g).map((pair) => parseInt(pair, 16))]),
  );
  const sheets = new Map();
  let timer = null;

  // The grey values of a picture, decoded once.
  const sheet = (source) => {
    if (!sheets.has(source)) {
      const picture = new Image();
      picture.src = source;
      const decoded = picture.decode().then(() => {
        const canvas = Object.assign(document.createElement("canvas"), { width: picture.width, height: picture.height });
        const context = canvas.getContext("2d", { willReadFrequently: true });
        context.drawImage(picture, 0, 0);
        const colours = context.getImageData(0, 0, picture.width, picture.height).data;
        return { wide: picture.width, grey: colours.filter((_, i) => i % 4 === 0) };
      });
      sheets.set(source, decoded);
    }
    return sheets.get(source);
  };

  const paint = (canvas, { wide, grey }, truth, blank, frame, map) => {
    const context = canvas.getContext("2d");
    const picture = context.createImageData(width, height);
    const corner = Math.floor(frame / columns) * height * wide + (frame % columns) * width;
    for (let y = 0; y < height; y++)
      for (let x = 0; x < width; x++) {
        const at = corner + y * wide + x;
        const value = truth ? Math.min(255, Math.max(0, 128 + grey[at] - truth.grey[at])) : grey[at];
        const to = 4 * (y * width + x);
        for (let c = 0; c < 3; c++) picture.data[to + c] = map[3 * value + c];
        picture.data[to + 3] = blank && blank.grey[y * blank.wide + x] > 127 ? 0 : 255;
      }
    context.putImageData(picture, 0, 0);
  };

  // Those of one method, such as the members of its ensemble, stand in a row of the grid, after what has one picture.
  const rows = () => {
    const found = film.rows.filter((row) => row.rate === null || !rate || row.rate === rate.value);
    const alone = (row) => found.filter((other) => other.method === row.method).length === 1;
    return [...found.filter(alone), ...found.filter((row) => !alone(row))];
  };

  const build = () => {
    const shown = rows();
    const size = (row) => shown.filter((other) => other.method === row.method).length;
    tiles.style.setProperty("--columns", Math.max(3, ...shown.map(size)));
    tiles.replaceChildren(
      ...shown.map((row, i) => {
        const canvas = Object.assign(document.createElement("canvas"), { width, height });
        canvas.setAttribute("role", "img");
        const caption = Object.assign(document.createElement("figcaption"), { textContent: row.name });
        const tile = document.createElement("figure");
        if (i && size(row) > 1 && row.method !== shown[i - 1].method) tile.style.gridColumnStart = 1;
        tile.append(canvas, caption);
        return tile;
      }),
    );
    draw();
  };

  const draw = async () => {
    const [frame, channel] = [Number(slider.value), Number(field.value)];
    const lead = film.lead_times[frame];
    const shown = rows();
    const pictures = await Promise.all(shown.map((row) => sheet(row.sheets[channel])));
    const blank = film.blank ? await sheet(film.blank) : null;
    const stale = frame !== Number(slider.value) || channel !== Number(field.value);
    if (stale || tiles.children.length !== shown.length) return;
    shown.forEach((row, i) => {
      const canvas = tiles.children[i].firstChild;
      const differs = differ.checked && i > 0 && row.scale === "truth";
      const map = maps[differs ? "RdBu_r" : "inferno"];
      paint(canvas, pictures[i], differs ? pictures[0] : null, blank, frame, map);
      if (row.scale === "spread") {
        const [low, high] = film.limits[channel];
        tiles.children[i].lastChild.textContent = `${row.name} (0 to ${Number(((high - low) / 2).toPrecision(2))})`;
      }
      const what = differs ? `${row.name} minus truth` : row.name;
      canvas.setAttribute("aria-label", `${what}: ${film.fields[channel]} at lead time ${lead}`);
    });
    slider.setAttribute("aria-valuetext", `lead time ${lead}`);
    place.querySelector("output").textContent = `lead time ${lead}`;
    legend(channel);
  };

  const legend = (channel) => {
    const [low, high] = film.limits[channel];
    const range = (high - low) / 2;
    const bars = [
      ["inferno", film.fields[channel], low, high],
      ["RdBu_r", "difference", -range, range],
    ];
    place.querySelectorAll(".bar").forEach((bar, i) => {
      const [map, name, from, to] = bars[i];
      bar.hidden = i === 1 && !differ.checked;
      const stops = [...Array(9).keys()].map((k) => {
        const at = 3 * Math.round((k * 255) / 8);
        return `rgb(${maps[map].slice(at, at + 3).join(" ")})`;
      });
      const [start, strip, end] = bar.children;
      start.textContent = `${name} ${Number(from.toPrecision(3))}`;
      end.textContent = Number(to.toPrecision(3));
      strip.style.background = `linear-gradient(90deg, ${stops.join(",")})`;
    });
  };

  const stop = () => {
    clearInterval(timer);
    timer = null;
    play.textContent = "Play";
  };
  play.addEventListener("click", () => {
    if (timer) return stop();
    play.textContent = "Pause";
    timer = setInterval(() => {
      slider.value = (Number(slider.value) + 1) % film.lead_times.length;
      draw();
    }, 160);
  });
  slider.addEventListener("input", () => {
    stop();
    draw();
  });
  field.addEventListener("change", draw);
  differ.addEventListener("change", draw);
  if (rate) rate.addEventListener("change", build);
  build();
})();

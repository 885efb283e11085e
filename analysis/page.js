// A click on a heading sorts the rows within each block; blocks (tasks) stay together, blanks go last.
for (const table of document.querySelectorAll("table.sortable")) {
  const headings = [...table.tHead.rows[0].cells];
  headings.forEach((heading, column) => heading.querySelector("button").addEventListener("click", () => {
    const descending = heading.getAttribute("aria-sort") === "ascending";
    headings.forEach(other => other.removeAttribute("aria-sort"));
    heading.setAttribute("aria-sort", descending ? "descending" : "ascending");
    const key = row => row.cells[column].dataset.sort;
    const blank = value => value === "" || value === "nan";
    const compare = (a, b) => {
      const [x, y] = [key(a), key(b)];
      if (blank(x) || blank(y)) return blank(x) - blank(y);
      const order = isNaN(x) || isNaN(y) ? x.localeCompare(y) : x - y;
      return descending ? -order : order;
    };
    for (const body of table.tBodies)
      body.append(...[...body.rows].filter(row => !row.classList.contains("group")).sort(compare));
  }));
}
// A link may lead into a closed part: open it. Paper shows every part.
const reveal = () => {
  const target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
  const closed = target && target.closest("details:not([open])");
  if (closed) { closed.open = true; target.scrollIntoView(); }
};
addEventListener("hashchange", reveal);
addEventListener("beforeprint", () => document.querySelectorAll("details").forEach(part => { part.open = true; }));
reveal();
// The plane is unpacked when its part is first opened; dark: color by day -> color by night.
function drawPlane(dark) {
  const place = document.getElementById("plane"), part = place.closest("details");
  const draw = async () => {
    if (!part.open || window.vegaEmbed || !window.DecompressionStream) return;
    const packed = Uint8Array.from(atob(document.getElementById("plane-code").textContent), c => c.charCodeAt(0));
    const script = document.createElement("script");
    script.text = await new Response(new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
    document.head.append(script);
    let text = document.getElementById("plane-data").textContent;
    const night = matchMedia("(prefers-color-scheme: dark)").matches;
    if (night) for (const [day, color] of Object.entries(dark)) text = text.replaceAll(`"${day}"`, `"${color}"`);
    const plane = JSON.parse(text);
    if (innerWidth < 640) plane.config.legend.columns = 2;
    const options = { actions: false, renderer: "svg", loader: { target: "_self" } };
    await window.vegaEmbed(place, plane, { ...options, tooltip: { theme: night ? "dark" : "light" } });
    place.dataset.drawn = "yes";
  };
  part.addEventListener("toggle", draw);
  draw();
}

// What the page shows. Names from files are set as text, never as HTML.

const TOLERANCE = 1e-4;

const element = (id) => document.getElementById(id);

function made(tag, text, name = "") {
  const node = document.createElement(tag);
  node.textContent = text;
  if (name) node.className = name;
  return node;
}

/** Tell what is going on; screen readers read it out. */
export function announce(text) {
  element("status").textContent = text;
}

/** Tell what went wrong; an empty text takes it back. */
export function fail(text) {
  element("error").textContent = text;
  element("error").hidden = !text;
}

export function showClasses(found) {
  element("classes").replaceChildren(
    ...found.map(({ index, label, share, text, colour }) => {
      const item = document.createElement("li");
      item.dataset.index = index;
      const bar = made("span", "", "bar");
      bar.style.width = `${100 * share}%`;
      if (colour) bar.style.background = `rgb(${colour.join(" ")} / 50%)`; // as the mask is drawn
      const name = made("span", label, "label");
      name.dir = "auto";
      item.append(bar, name, made("span", text, "score"));
      return item;
    }),
  );
  element("result").hidden = false;
  element("result").scrollIntoView({ block: "nearest" }); // on a phone it is below the window
}

export function showLatency(text) {
  element("latency").textContent = text;
}

/** Compare all numbers of the expected answer, and the order of classes, which `ranked` says in words. */
export function showAgreement(scores, expected, ranked) {
  const difference = Math.max(...expected.map(({ index, score }) => Math.abs(scores[index] - score)));
  const order = [...scores.keys()].sort((a, b) => scores[b] - scores[a] || a - b).slice(0, expected.length);
  const same = order.every((index, place) => index === expected[place].index);
  const figure = difference.toPrecision(2);
  const node = element("agreement");
  const differs = Boolean(ranked) && order[0] !== expected[0].index;
  node.classList.toggle("differs", differs);
  if (differs) {
    node.textContent = `Differs from the expected answer, ${expected[0].label}: scores by up to ${figure}.`;
  } else if (difference <= TOLERANCE) {
    node.textContent = `Equal to the expected answer within ${TOLERANCE}: largest difference of a score ${figure}.`;
  } else if (!ranked) {
    node.textContent = `Differs from the expected answer by up to ${figure}; kernels that round differently give small differences.`;
  } else {
    const what = same ? ranked : "first class";
    node.textContent = `The expected ${what}; scores differ by up to ${figure}, as they do where kernels round differently.`;
  }
  node.hidden = false;
}

/** Size of a file, as text. */
export function sizeText(bytes) {
  return bytes < 1e5 ? `${(bytes / 1e3).toFixed(1)} kB` : `${(bytes / 1e6).toFixed(1)} MB`;
}

/** The table of files. */
export function showFiles(files, refusal) {
  element("files").replaceChildren(
    ...files.map((file) => {
      const row = document.createElement("tr");
      const agreement = file.agreement && `${(100 * file.agreement.fraction).toFixed(1)}% of ${file.agreement.samples} images`;
      const cells = [file.precision, sizeText(file.bytes), file.inputs[0].dtype, agreement ?? "not known", refusal(file) || "yes"];
      const name = made("th", file.file);
      name.scope = "row";
      row.append(name, ...cells.map((text) => made("td", text)));
      return row;
    }),
  );
}

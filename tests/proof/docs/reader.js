// Reads documents with JavaScript's parser; see `canonical.rs` for what is printed.
const hex = (text) => Buffer.from(text, "utf8").toString("hex");
const text = (value) => {
  if (value === null || typeof value === "boolean") return String(value);
  if (typeof value === "number") {
    const bits = Buffer.alloc(8);
    bits.writeDoubleBE(value);
    return "f" + bits.toString("hex");
  }
  if (typeof value === "string") return "s" + hex(value);
  if (Array.isArray(value)) return "[" + value.map(text).join(",") + "]";
  return "{" + Object.entries(value).map(([k, v]) => `${hex(k)}:${text(v)}`).sort().join(",") + "}";
};

const input = require("fs").readFileSync(0);
const utf8 = new TextDecoder("utf-8", { fatal: true });
const lines = [];
for (let at = 0; at < input.length; ) {
  const end = input.indexOf(10, at);
  const start = end + 1;
  const length = Number(input.subarray(at, end).toString());
  at = start + length;
  try {
    lines.push(text(JSON.parse(utf8.decode(input.subarray(start, at)))));
  } catch {
    lines.push("!");
  }
}
process.stdout.write(lines.join("\n") + "\n");

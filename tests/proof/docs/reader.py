# Reads documents with Python's parser; see `canonical.rs` for what is printed.
import json, struct, sys


def text(value):
    if value is None or value is True or value is False:
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int):
        return f"i{value}"
    if isinstance(value, float):
        return "f" + struct.pack(">d", value).hex()
    if isinstance(value, str):
        return "s" + value.encode("utf-8", "surrogatepass").hex()
    if isinstance(value, list):
        return "[" + ",".join(map(text, value)) + "]"
    key = lambda key: key.encode("utf-8", "surrogatepass").hex()
    return "{" + ",".join(sorted(f"{key(k)}:{text(v)}" for k, v in value.items())) + "}"


def refuse(word):
    raise ValueError(word)


source = sys.stdin.buffer
while line := source.readline():
    document = source.read(int(line))
    try:
        # The word is refused that Python takes and JSON does not have.
        print(text(json.loads(document.decode("utf-8-sig"), parse_constant=refuse)))
    except ValueError:
        print("!")

/** The document in `text`, or undefined when it is not JSON. The parser's own message quotes the text, so it is dropped. */
export function jsonOf(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

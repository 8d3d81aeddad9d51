//! The document as one HTML page that needs nothing else: no script, no style or font from
//! elsewhere. It reads well in a terminal's browser too.

use std::fmt::Write as _;

use serde_json::Value;

const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;\
    color:#222;background:#fff}h2{margin-top:3rem;border-bottom:1px solid #ccc}h3{margin:2rem 0 .2rem}\
    code,pre{font:14px/1.4 ui-monospace,monospace}pre{background:#f4f4f4;padding:.6rem;overflow:auto}\
    table{border-collapse:collapse;margin:.4rem 0}td,th{padding:.1rem .8rem .1rem 0;text-align:left;\
    vertical-align:top}summary{cursor:pointer}@media(prefers-color-scheme:dark){body{color:#ddd;\
    background:#181818}pre{background:#262626}a{color:#8ab4f8}h2{border-color:#444}}";

/// How deep a schema is written out: what lies deeper is named.
const DEPTH: usize = 3;

/// Returns the page.
pub(super) fn page(document: &Value) -> String {
    let mut out = Page {
        document,
        text: String::new(),
    };
    out.head();
    for tag in list(&document["tags"]) {
        let name = text(&tag["name"]);
        out.put(&format!(
            "<h2 id=\"{0}\">{0}</h2>\n<p>{1}</p>\n",
            escaped(name),
            prose(text(&tag["description"]))
        ));
        for (method, path, operation) in operations(document) {
            if operation["tags"][0] == tag["name"] {
                out.operation(&method, path, operation);
            }
        }
    }
    out.schemas();
    out.put("</body></html>\n");
    out.text
}

struct Page<'a> {
    document: &'a Value,
    text: String,
}

// === impl Page ===

impl Page<'_> {
    fn put(&mut self, text: &str) {
        self.text.push_str(text);
    }

    fn head(&mut self) {
        let info = &self.document["info"];
        let title = format!("{} {}", text(&info["title"]), text(&info["version"]));
        let _ = write!(
            self.text,
            "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
             <meta name=\"viewport\" content=\"width=device-width\"><title>{0}: the API</title>\
             <style>{STYLE}</style></head><body>\n<h1>{0}: the API</h1>\n<p>{1}</p>\n\
             <p>The same for programs: <a href=\"/v1/openapi.json\">/v1/openapi.json</a>.</p>\n<ul>\n",
            escaped(&title),
            prose(text(&info["description"])),
        );
        for tag in list(&self.document["tags"]) {
            let name = escaped(text(&tag["name"]));
            self.put(&format!("<li><a href=\"#{name}\">{name}</a></li>\n"));
        }
        self.put("<li><a href=\"#schemas\">Types</a></li>\n</ul>\n");
    }

    fn operation(&mut self, method: &str, path: &str, operation: &Value) {
        let id = escaped(text(&operation["operationId"]));
        let _ = write!(
            self.text,
            "<h3 id=\"{id}\">{}</h3>\n<p><code>{method} {}</code></p>\n",
            escaped(text(&operation["summary"])),
            escaped(path)
        );
        let more = text(&operation["description"]);
        if !more.is_empty() {
            self.put(&format!("<p>{}</p>\n", prose(more)));
        }
        self.parameters(operation);
        for (kind, content) in fields(&operation["requestBody"]["content"]) {
            let schema = kind_of(&content["schema"]);
            self.put(&format!(
                "<p>Body (<code>{}</code>): {schema}</p>\n",
                escaped(kind)
            ));
        }
        self.answers(operation);
        let curl = curl(method, path, operation);
        self.put(&format!("<pre>{}</pre>\n", escaped(&curl)));
    }

    fn parameters(&mut self, operation: &Value) {
        let all = list(&operation["parameters"]);
        if all.is_empty() {
            return;
        }
        self.put("<table><tr><th>Parameter</th><th>In</th><th>Type</th><th></th></tr>\n");
        for parameter in all {
            let required = parameter["required"] == true && parameter["in"] != "path";
            let must = if required { "Required. " } else { "" };
            let _ = writeln!(
                self.text,
                "<tr><td><code>{}</code></td><td>{}</td><td>{}</td><td>{must}{}</td></tr>",
                escaped(text(&parameter["name"])),
                escaped(text(&parameter["in"])),
                kind_of(&parameter["schema"]),
                prose(text(&parameter["description"]))
            );
        }
        self.put("</table>\n");
    }

    fn answers(&mut self, operation: &Value) {
        let mut errors = Vec::new();
        for (status, answer) in fields(&operation["responses"]) {
            if status.starts_with(['4', '5']) {
                errors.push(status.as_str());
                continue;
            }
            let content = fields(&answer["content"]).next();
            let what = match content {
                Some((kind, content)) if kind != "application/json" => {
                    let inner = kind_of(&content["schema"]);
                    format!("{inner} as <code>{}</code>", escaped(kind))
                }
                Some((_, content)) => kind_of(&content["schema"]),
                None => escaped(text(&answer["description"])),
            };
            self.put(&format!("<p>Answer {status}: {what}</p>\n"));
        }
        let events: Vec<String> = list(&operation["x-events"]).iter().map(kind_of).collect();
        if !events.is_empty() {
            self.put(&format!("<p>Events: {}</p>\n", events.join(", ")));
        }
        if !errors.is_empty() {
            let errors = errors.join(", ");
            self.put(&format!(
                "<p>Errors: {errors} (<a href=\"#ErrorBody\">ErrorBody</a>)</p>\n"
            ));
        }
    }

    fn schemas(&mut self) {
        self.put("<h2 id=\"schemas\">Types</h2>\n");
        for (name, schema) in fields(&self.document["components"]["schemas"]) {
            let _ = write!(
                self.text,
                "<h3 id=\"{0}\">{0}</h3>\n<p>{1}</p>\n",
                escaped(name),
                prose(text(&schema["description"]))
            );
            let required = list(&schema["required"]);
            let mut rows = String::new();
            for (field, property) in fields(&schema["properties"]) {
                let optional = !required.iter().any(|name| name == field);
                let _ = writeln!(
                    rows,
                    "<tr><td><code>{}{}</code></td><td>{}</td><td>{}</td></tr>",
                    escaped(field),
                    if optional { "?" } else { "" },
                    kind_of(property),
                    prose(text(&property["description"]))
                );
            }
            if rows.is_empty() {
                self.put(&format!("<p>{}</p>\n", kind_of(schema)));
            } else {
                self.put(&format!("<table>\n{rows}</table>\n"));
            }
        }
    }
}

/// Returns an example call.
fn curl(method: &str, path: &str, operation: &Value) -> String {
    let mut address = path.to_owned();
    for parameter in list(&operation["parameters"]) {
        let name = text(&parameter["name"]);
        if parameter["in"] == "query" && parameter["required"] == true {
            let _ = write!(address, "?{name}={}", name.to_ascii_uppercase());
        }
        if parameter["in"] == "path" {
            let shouted = format!("${}", name.to_ascii_uppercase());
            address = address.replace(&format!("{{{name}}}"), &shouted);
        }
    }
    let mut call = String::from("curl");
    if method != "GET" {
        let _ = write!(call, " -X {method}");
    }
    if operation["security"] != Value::Array(Vec::new()) {
        call.push_str(" -H \"Authorization: Bearer $TOKEN\"");
    }
    match fields(&operation["requestBody"]["content"]).next() {
        Some((kind, _)) if kind == "application/json" => {
            call.push_str(" -H 'Content-Type: application/json' -d '{}'");
        }
        Some(_) => call.push_str(" -T FILE"),
        None => {}
    }
    format!("{call} \"$HANGAR{address}\"")
}

/// Returns what a schema allows, in a few words of HTML.
fn kind_of(schema: &Value) -> String {
    shown(schema, DEPTH)
}

fn shown(schema: &Value, depth: usize) -> String {
    if let Some(reference) = schema["$ref"].as_str() {
        let name = escaped(reference.rsplit('/').next().unwrap_or_default());
        return format!("<a href=\"#{name}\">{name}</a>");
    }
    if depth == 0 {
        return "object".to_owned();
    }
    for word in ["anyOf", "oneOf"] {
        let choices = list(&schema[word]);
        if !choices.is_empty() {
            let all: Vec<String> = choices.iter().map(|one| shown(one, depth - 1)).collect();
            return all.join(" or ");
        }
    }
    let known = list(&schema["enum"]);
    if !known.is_empty() {
        let all: Vec<String> = known
            .iter()
            .map(|one| format!("<code>{}</code>", escaped(&one.to_string())))
            .collect();
        return all.join(", ");
    }
    if !schema["const"].is_null() {
        return format!("<code>{}</code>", escaped(&schema["const"].to_string()));
    }
    let kinds = match &schema["type"] {
        Value::String(kind) => vec![kind.as_str()],
        Value::Array(kinds) => kinds.iter().filter_map(Value::as_str).collect(),
        _ => return "anything".to_owned(),
    };
    let named = kinds.iter().map(|kind| match *kind {
        "array" => format!("list of {}", shown(&schema["items"], depth - 1)),
        "object" if schema["additionalProperties"].is_object() => {
            format!(
                "map to {}",
                shown(&schema["additionalProperties"], depth - 1)
            )
        }
        "string" if schema["format"].is_string() => escaped(text(&schema["format"])),
        kind => escaped(kind),
    });
    named.collect::<Vec<_>>().join(" or ")
}

fn operations(document: &Value) -> impl Iterator<Item = (String, &str, &Value)> {
    fields(&document["paths"]).flat_map(|(path, methods)| {
        fields(methods)
            .map(move |(method, operation)| (method.to_ascii_uppercase(), path.as_str(), operation))
    })
}

fn fields(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flatten()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// Returns text with what stands between backticks as code.
fn prose(given: &str) -> String {
    let parts = given.split('`').map(escaped).enumerate();
    let marked = parts.map(|(at, part)| match at % 2 {
        1 => format!("<code>{part}</code>"),
        _ => part,
    });
    marked.collect()
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

use std::collections::BTreeSet;

use super::super::guard::Need;
use super::super::table::table;
use super::*;

fn operations() -> Vec<(String, String, &'static Value)> {
    let paths = whole()["paths"].as_object().unwrap();
    let each = paths.iter().flat_map(|(path, methods)| {
        let methods = methods.as_object().unwrap();
        methods
            .iter()
            .map(|(method, operation)| (method.to_ascii_uppercase(), path.clone(), operation))
    });
    each.collect()
}

#[test]
fn every_endpoint_is_in_the_document_and_nothing_else_is() {
    let served: BTreeSet<(String, String)> = table()
        .iter()
        .map(|endpoint| {
            (
                endpoint.method.to_string(),
                endpoint.path.replace("{*", "{"),
            )
        })
        .collect();
    let described = operations()
        .into_iter()
        .map(|(method, path, _)| (method, path));
    assert_eq!(served, described.collect());
    assert!(served.len() > 100);
}

#[test]
fn operations_have_names_of_their_own_and_known_groups() {
    let mut names = BTreeSet::new();
    let tags: Vec<&str> = TAGS.iter().map(|(tag, _)| *tag).collect();
    for (method, path, operation) in operations() {
        let name = operation["operationId"].as_str().unwrap();
        assert!(names.insert(name), "{name} twice: {method} {path}");
        let tag = operation["tags"][0].as_str().unwrap();
        assert!(tags.contains(&tag), "{tag}: {method} {path}");
        assert!(!operation["responses"].as_object().unwrap().is_empty());
    }
}

#[test]
fn every_part_of_a_path_is_described() {
    for (method, path, operation) in operations() {
        let in_path = |parameter: &&Value| parameter["in"] == "path";
        let described: Vec<String> = operation["parameters"]
            .as_array()
            .unwrap()
            .iter()
            .filter(in_path)
            .map(|parameter| format!("{{{}}}", parameter["name"].as_str().unwrap()))
            .collect();
        let parts: Vec<&str> = path
            .split('/')
            .filter(|part| part.starts_with('{'))
            .collect();
        assert_eq!(parts, described, "{method} {path}");
    }
}

#[test]
fn a_token_is_asked_for_wherever_the_table_has_a_need() {
    for endpoint in table() {
        let path = endpoint.path.replace("{*", "{");
        let method = endpoint.method.as_str().to_ascii_lowercase();
        let operation = &whole()["paths"][&path][&method];
        let open = endpoint.need == Need::Open;
        assert_eq!(operation["security"] == json!([]), open, "{method} {path}");
        assert_eq!(
            operation["responses"]["401"].is_null(),
            open && path != "/v1/tokens/authorize",
            "{method} {path}"
        );
    }
}

fn references<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                match value.as_str() {
                    Some(text) if key == "$ref" => found.push(text),
                    _ => references(value, found),
                }
            }
        }
        Value::Array(all) => all.iter().for_each(|one| references(one, found)),
        _ => {}
    }
}

#[test]
fn every_reference_leads_somewhere_and_every_schema_is_used() {
    let mut found = Vec::new();
    references(whole(), &mut found);
    for reference in &found {
        let pointer = reference.strip_prefix('#').unwrap();
        assert!(whole().pointer(pointer).is_some(), "{reference}");
    }
    for name in whole()["components"]["schemas"].as_object().unwrap().keys() {
        let reference = format!("#/components/schemas/{name}");
        assert!(
            found.contains(&reference.as_str()),
            "{name} is used nowhere"
        );
    }
}

#[test]
fn what_is_left_out_when_it_is_empty_is_never_null_in_an_answer() {
    let schemas = &whole()["components"]["schemas"];
    let attached = &schemas["Volume"]["properties"]["attached_machine_id"];
    assert!(attached.is_object());
    assert!(attached["$ref"].is_string(), "{attached}");
    assert!(
        schemas["Volume"]["required"]
            .as_array()
            .unwrap()
            .iter()
            .all(|name| name != "attached_machine_id")
    );
}

#[test]
fn the_page_shows_every_endpoint_and_asks_nobody_else_for_anything() {
    let page = page::page(whole());
    for (method, path, _) in operations() {
        assert!(
            page.contains(&format!("<code>{method} {path}</code>")),
            "{method} {path}"
        );
    }
    for loaded in ["<script", "<link", "src=", "@import", "url("] {
        assert!(!page.contains(loaded), "{loaded}");
    }
}

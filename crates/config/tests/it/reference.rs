//! The pages that are generated from the types are as the types are.

use std::path::Path;

use hangar_config::schema;

fn page(name: &str) -> String {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference");
    std::fs::read_to_string(docs.join(name)).unwrap()
}

const HOW: &str = "run `cargo xtask docs`";

#[test]
fn the_reference_and_the_schema_are_those_of_the_types() {
    assert_eq!(page("fly-toml.md"), schema::reference(), "{HOW}");
    let written: serde_json::Value = serde_json::from_str(&page("fly-toml.schema.json")).unwrap();
    assert_eq!(written, schema::json_schema(), "{HOW}");
}

#[test]
fn the_differences_name_every_key_that_is_not_acted_on() {
    assert!(
        page("differences.md").contains(&schema::not_acted_on()),
        "{HOW}"
    );
}

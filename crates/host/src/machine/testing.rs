//! Specs for tests of this crate.

use hangar_api::machine::MachineSpec;

/// Returns a spec of an app; `generation` also makes its version.
pub(crate) fn spec(app: &str, generation: u64) -> MachineSpec {
    let text = serde_json::json!({
        "id": "00000000000001", "name": "m", "app": app, "network": 1, "slot": "here-iad",
        "host": "here", "host_part": 1, "region": "iad", "generation": generation,
        "instance_id": format!("01H{generation:023}"), "config": {"image": "x"},
        "image_ref": {"registry": "r", "repository": "x", "digest": "sha256:1"},
        "created_at": "2024-01-01T00:00:00Z", "updated_at": "2024-01-01T00:00:00Z",
    });
    serde_json::from_value(text).expect("the fields are those of a spec")
}

//! `hangar doctor`.

use anyhow::Result;
use serde_json::json;

use crate::args::JsonArgs;
use crate::error::Exit;
use crate::output;

pub(super) fn run(args: &JsonArgs) -> Result<Exit> {
    let findings = hangar_host::net::findings();
    if args.json {
        let all: Vec<_> = findings.iter().map(|f| json!({"what": f.problem, "mend": f.remedy})).collect();
        output::json(&all)?;
    }
    for finding in &findings {
        output::data(&format!("✘ {}\n    mend it with: {}", finding.problem, finding.remedy))?;
    }
    Ok(if findings.is_empty() { Exit::Done } else { Exit::Failed })
}

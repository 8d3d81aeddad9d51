//! `hangar doctor`: what this machine lacks, and the command that mends it.

use std::path::PathBuf;

use anyhow::Result;
use hangar_host::probe::{Probe, Verdict};

use crate::args::JsonArgs;
use crate::context::{self, DATA_DIR};
use crate::error::Exit;
use crate::output;

pub(super) fn run(args: &JsonArgs) -> Result<Exit> {
    let data_dir = context::variable("HANGAR_DATA_DIR").unwrap_or_else(|| DATA_DIR.to_owned());
    let probe = Probe::new(&PathBuf::from(data_dir));
    if args.json {
        output::json(&probe)?;
    } else {
        for finding in &probe.findings {
            let mark = match finding.verdict {
                Verdict::Ok => "✓",
                Verdict::Degraded => "!",
                Verdict::Missing => "✘",
            };
            output::data(&format!("{mark} {}: {}", finding.what, finding.sentence))?;
            if let Some(mend) = &finding.mend {
                output::data(&format!("    mend it with: {mend}"))?;
            }
        }
    }
    Ok(if probe.missing().next().is_none() {
        Exit::Done
    } else {
        Exit::Failed
    })
}

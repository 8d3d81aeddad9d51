//! Test Machines (`machine_checks`): what is looked at and looked up before a deployment begins.

use hangar_api::id::AppName;
use hangar_api::release::{GroupSpec, TestMachine};

use crate::core::Core;
use crate::error::Problem;
use crate::images;
use crate::machines::validate;

/// Most test Machines of one process group.
const MAX_TESTS: usize = 16;

/// Checks the test Machines of a group, and finds out what the names of their own images mean.
pub(super) async fn resolve(
    core: &Core,
    app: &AppName,
    group: &mut GroupSpec,
) -> Result<(), Problem> {
    let refused = |text: String| Problem::Unprocessable(format!("machine_checks: {text}"));
    let count = group.test_machines.len();
    if count > MAX_TESTS {
        return Err(refused(format!(
            "{count} for one process group are too many, at most {MAX_TESTS}"
        )));
    }
    for test in &mut group.test_machines {
        let TestMachine { config, image_ref } = test;
        if config.init.cmd.as_ref().is_none_or(Vec::is_empty) {
            return Err(refused("missing command for test machine".to_owned()));
        }
        let (own, guest) = (config.image.clone(), config.guest.clone());
        if own.is_empty() {
            config.image.clone_from(&group.config.image);
        }
        let mut checked = validate::config(Some(std::mem::take(config)))
            .map_err(|problem| refused(problem.to_string()))?;
        checked.guest = guest;
        checked.image.clone_from(&own);
        *config = checked;
        *image_ref = match own.as_str() {
            "" => None,
            name => Some(images::resolve(core, app, name.to_owned()).await?),
        };
    }
    Ok(())
}

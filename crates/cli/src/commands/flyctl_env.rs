//! `hangar flyctl-env`: the variables with which an unmodified flyctl works with this server, and
//! sends nothing to anybody else (flyctl-wire.md 1.2).

use std::path::Path;

use anyhow::Result;

use crate::args::{FlyctlEnvArgs, Shell};
use crate::context;
use crate::error::Exit;
use crate::output;

/// flyctl's folder for this server, in the user's folder for configuration: its own would hold a
/// login at Fly.
const CONFIG_DIR: &str = "hangar/flyctl";

/// Prints the variables for a shell.
pub(super) fn run(args: &FlyctlEnvArgs) -> Result<Exit> {
    let choice = context::choose()?;
    if choice.url.starts_with("ssh://") {
        return Err(Exit::Usage.with(
            "flyctl does not speak to a server over ssh: forward its port (ssh -L 4280:127.0.0.1:4280 HOST), and set HANGAR_API_URL=http://127.0.0.1:4280 and HANGAR_ACCESS_TOKEN",
        ));
    }
    if choice.token.is_empty() {
        return Err(Exit::NotAllowed.with(
            "no token for this server is known: set HANGAR_ACCESS_TOKEN to one, and try again",
        ));
    }
    let home = context::variable("XDG_CONFIG_HOME").or_else(|| {
        let home = context::variable("HOME")?;
        Some(format!("{home}/.config"))
    });
    let vars = variables(&choice.url, &choice.token, home.as_deref());
    let lines: Vec<String> = vars
        .iter()
        .map(|(name, value)| line(args.shell, name, value))
        .collect();
    output::data(&lines.join("\n"))?;
    Ok(Exit::Done)
}

/// Returns the variables by name. `config` is the user's folder for configuration.
fn variables(url: &str, token: &str, config: Option<&str>) -> Vec<(&'static str, String)> {
    let url = url.trim_end_matches('/');
    let host = url.split_once("://").map_or(url, |(_, host)| host);
    let mut vars = vec![
        // Three bases, or the token goes to Fly with a part of the calls.
        ("FLY_API_BASE_URL", url.to_owned()),
        ("FLY_FLAPS_BASE_URL", url.to_owned()),
        ("FLY_UIEX_BASE_URL", url.to_owned()),
        ("FLY_REGISTRY_HOST", host.to_owned()),
        ("FLY_ACCESS_TOKEN", token.to_owned()),
        ("FLY_METRICS_BASE_URL", url.to_owned()),
        ("FLY_SEND_METRICS", "0".to_owned()),
        ("FLY_TRACE_COLLECTOR_URL", "127.0.0.1".to_owned()),
        ("FLY_SYNTHETICS_AGENT", "0".to_owned()),
        ("FLY_NO_UPDATE_CHECK", "1".to_owned()),
        ("FLY_NO_INCIDENTS_CHECK", "1".to_owned()),
    ];
    if let Some(config) = config {
        let folder = Path::new(config).join(CONFIG_DIR);
        vars.push(("FLY_CONFIG_DIR", folder.display().to_string()));
    }
    vars
}

/// Returns the line that sets a variable and hands it on to programs.
fn line(shell: Shell, name: &str, value: &str) -> String {
    match shell {
        Shell::Sh => format!("export {name}='{}'", value.replace('\'', r"'\''")),
        Shell::Fish => {
            let value = value.replace('\\', r"\\").replace('\'', r"\'");
            format!("set -gx {name} '{value}'")
        }
        Shell::Powershell => format!("$env:{name} = '{}'", value.replace('\'', "''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_base_is_the_server_and_the_registry_is_its_host() {
        let vars = variables(
            "https://hangar.example:4280/",
            "hangar_x",
            Some("/h/.config"),
        );
        let get = |name: &str| vars.iter().find(|(n, _)| *n == name).unwrap().1.as_str();
        for base in ["API", "FLAPS", "UIEX", "METRICS"] {
            let name = format!("FLY_{base}_BASE_URL");
            assert_eq!(get(&name), "https://hangar.example:4280");
        }
        assert_eq!(get("FLY_REGISTRY_HOST"), "hangar.example:4280");
        assert_eq!(get("FLY_ACCESS_TOKEN"), "hangar_x");
        assert_eq!(get("FLY_CONFIG_DIR"), "/h/.config/hangar/flyctl");
    }

    #[test]
    fn a_quote_in_a_value_ends_no_shells_string() {
        assert_eq!(line(Shell::Sh, "A", "b'c"), r"export A='b'\''c'");
        assert_eq!(line(Shell::Fish, "A", r"b'c\"), r"set -gx A 'b\'c\\'");
        assert_eq!(line(Shell::Powershell, "A", "b'c"), "$env:A = 'b''c'");
    }
}

//! `--file-local`, `--file-literal`, `--file-secret`: `PATH=WHAT` (process-groups-and-deploy.md 2.3).

use hangar_api::machine::config::File;

/// Splits `PATH=WHAT`; an empty WHAT removes the file.
pub(in crate::commands) fn parse<'a>(
    flag: &str,
    text: &'a str,
) -> Result<(&'a str, &'a str), String> {
    let (path, what) = text
        .split_once('=')
        .ok_or_else(|| format!("invalid {flag} argument {text}: write PATH=VALUE"))?;
    if !path.starts_with('/') {
        return Err(format!("{flag}: guest path, {path}, must be absolute"));
    }
    Ok((path, what))
}

/// Puts files in the place of those with the same path; one without content takes it away.
pub(super) fn merge(files: &mut Vec<File>, changes: &[File]) {
    for change in changes {
        let is_there = files.iter().position(|f| f.guest_path == change.guest_path);
        let removes = change.raw_value.is_none() && change.secret_name.is_none();
        match (is_there, removes) {
            (Some(at), true) => {
                files.remove(at);
            }
            (Some(at), false) => {
                if let Some(place) = files.get_mut(at) {
                    *place = change.clone();
                }
            }
            (None, true) => {}
            (None, false) => files.push(change.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_added_replaced_and_removed_by_its_path() {
        let file = |path: &str, value: Option<&str>| File {
            guest_path: path.to_owned(),
            raw_value: value.map(str::to_owned),
            ..File::default()
        };
        let mut files = vec![file("/a", Some("1")), file("/b", Some("2"))];
        merge(
            &mut files,
            &[
                file("/b", Some("3")),
                file("/c", Some("4")),
                file("/a", None),
                file("/none", None),
            ],
        );
        assert_eq!(files, [file("/b", Some("3")), file("/c", Some("4"))]);
    }

    #[test]
    fn a_path_must_be_absolute_and_followed_by_something() {
        assert_eq!(parse("--file-literal", "/a=b=c"), Ok(("/a", "b=c")));
        assert_eq!(parse("--file-literal", "/a="), Ok(("/a", "")));
        assert!(
            parse("--file-literal", "a=b")
                .unwrap_err()
                .contains("absolute")
        );
        assert!(
            parse("--file-literal", "/a")
                .unwrap_err()
                .contains("PATH=VALUE")
        );
    }
}

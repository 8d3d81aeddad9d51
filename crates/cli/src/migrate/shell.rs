//! Command lines: what a shell would run, as words of fly.toml, which knows no shell (2.4).

/// Returns one word, quoted where that is needed, as Fly's splitter reads it.
pub(crate) fn quote(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@%+~^".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r#"'"'"'"#))
}

/// Returns words as one command.
pub(crate) fn join<S: AsRef<str>>(words: &[S]) -> String {
    let quoted: Vec<String> = words.iter().map(|word| quote(word.as_ref())).collect();
    quoted.join(" ")
}

/// Returns a line that was written for a shell as a command: as it is where words and quotes mean
/// the same without one, else as an argument of `sh -c`. True where a shell is needed.
pub(crate) fn command(line: &str) -> (String, bool) {
    let line = line.trim();
    if !needs_shell(line) {
        return (line.to_owned(), false);
    }
    // `exec` makes the program the one that gets the signals; it takes one simple command only.
    let simple = !line.contains(['&', '|', ';', '\n', '(', '{', '`']) && !line.contains("$(");
    let starts_plain = line.split_whitespace().next().is_some_and(|word| {
        !word.contains('=') && !["exec", "cd", "if", "for", "while"].contains(&word)
    });
    let line = if simple && starts_plain {
        format!("exec {line}")
    } else {
        line.to_owned()
    };
    (format!("sh -c {}", quote(&line)), true)
}

/// Returns whether a line means something else to a shell than to a splitter of words.
fn needs_shell(line: &str) -> bool {
    if hangar_config::words::split(line).is_err() {
        return true;
    }
    let first = line.split_whitespace().next().unwrap_or_default();
    let assigns = first.split_once('=').is_some_and(|(name, _)| {
        !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    });
    let builtin = [
        "cd", "exec", "source", ".", "export", "set", "if", "for", "while", "test", "[",
    ];
    if assigns || builtin.contains(&first) {
        return true;
    }
    let mut single = false;
    let mut double = false;
    let mut escaped = false;
    for c in line.chars() {
        if escaped {
            escaped = false;
            continue;
        }
        match c {
            '\\' if !single => escaped = true,
            '\'' if !double => single = !single,
            '"' if !single => double = !double,
            '$' | '`' if !single => return true,
            '&' | '|' | ';' | '<' | '>' | '(' | ')' | '*' | '?' | '{' | '}' | '~' | '#' | '\n'
                if !single && !double =>
            {
                return true;
            }
            _ => {}
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use hangar_config::words::split;

    #[test]
    fn a_plain_command_stays_and_one_for_a_shell_gets_a_shell() {
        assert_eq!(
            command("node server.js --name 'a b'").0,
            "node server.js --name 'a b'"
        );
        assert_eq!(
            split(&command("bundle exec puma -p $PORT").0).unwrap(),
            ["sh", "-c", "exec bundle exec puma -p $PORT"]
        );
        assert_eq!(
            split(&command("cd app && ./run 'x y' > /dev/null").0).unwrap(),
            ["sh", "-c", "cd app && ./run 'x y' > /dev/null"]
        );
        assert_eq!(
            split(&command("RAILS_ENV=production bin/rails s").0).unwrap(),
            ["sh", "-c", "RAILS_ENV=production bin/rails s"]
        );
        assert_eq!(command("echo '$HOME'").0, "echo '$HOME'");
    }

    proptest::proptest! {
        #[test]
        fn quoted_words_come_back(words in proptest::collection::vec("[ -~\t\n]{0,12}", 1..6)) {
            proptest::prop_assert_eq!(split(&join(&words)).unwrap(), words);
        }

        #[test]
        fn any_line_becomes_a_command_that_can_be_split(line in "\\PC{0,40}") {
            proptest::prop_assert!(split(&command(&line).0).is_ok());
        }
    }
}

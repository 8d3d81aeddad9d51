//! Splitting a command into words, exactly as Fly's client does (process-groups-and-deploy.md
//! 2.4): quotes, backslashes and comments, and nothing else of a shell.

/// Why a command cannot be split; the texts are Fly's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SplitError {
    /// A quote is not closed.
    #[error("EOF found when expecting closing quote")]
    Quote,
    /// Nothing follows a backslash.
    #[error("EOF found after escape character")]
    Escape,
}

#[derive(Clone, Copy)]
enum State {
    Between,
    Word,
    Escaped,
    Double,
    DoubleEscaped,
    Single,
    Comment,
}

/// Returns the words of a command.
pub fn split(command: &str) -> Result<Vec<String>, SplitError> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut state = State::Between;
    for c in command.chars() {
        let is_space = matches!(c, ' ' | '\t' | '\r' | '\n');
        state = match (state, c) {
            (State::Between, _) if is_space => State::Between,
            (State::Between, '#') => State::Comment,
            (State::Word, _) if is_space => {
                words.push(std::mem::take(&mut word));
                State::Between
            }
            (State::Between | State::Word, '"') => State::Double,
            (State::Between | State::Word, '\'') => State::Single,
            (State::Between | State::Word, '\\') => State::Escaped,
            (State::Comment, '\n') => State::Between,
            (State::Comment, _) => State::Comment,
            (State::Double, '"') | (State::Single, '\'') => State::Word,
            (State::Double, '\\') => State::DoubleEscaped,
            (state, c) => {
                word.push(c);
                match state {
                    State::Between | State::Escaped => State::Word,
                    State::DoubleEscaped => State::Double,
                    other => other,
                }
            }
        };
    }
    match state {
        State::Word => words.push(word),
        State::Escaped | State::DoubleEscaped => return Err(SplitError::Escape),
        State::Double | State::Single => return Err(SplitError::Quote),
        State::Between | State::Comment => {}
    }
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_split_as_flys_client_splits_them() {
        let cases: [(&str, &[&str]); 9] = [
            ("bin/web --port 8080", &["bin/web", "--port", "8080"]),
            ("a \t\r\n b", &["a", "b"]),
            (r#"sh -c "echo \"hi\" $X""#, &["sh", "-c", "echo \"hi\" $X"]),
            (r"'a\b' c\ d", &[r"a\b", "c d"]),
            ("one'two'\"three\"", &["onetwothree"]),
            ("a '' b", &["a", "", "b"]),
            ("a # all of this\nb c#d", &["a", "b", "c#d"]),
            (
                "a && b | c; d > $HOME/*",
                &["a", "&&", "b", "|", "c;", "d", ">", "$HOME/*"],
            ),
            ("  # nothing", &[]),
        ];
        for (command, words) in cases {
            assert_eq!(split(command).unwrap(), words, "{command}");
        }
        assert_eq!(split("it's"), Err(SplitError::Quote));
        assert_eq!(split("a \"b"), Err(SplitError::Quote));
        assert_eq!(split("a\\"), Err(SplitError::Escape));
    }
}

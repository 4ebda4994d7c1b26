//! From what git says to a fault: whose doing it is, and the one line that tells.

use std::io::Read;
use std::path::Path;

use crate::model::Code;
use crate::sink::child::shown;
use crate::sink::git::program::Trouble;
use crate::sink::{Fault, Retry};

/// Lines that stand around the one that tells.
const BOILERPLATE: &[&str] = &[
    "hint:",
    "Please make sure you have the correct access rights",
    "and the repository exists.",
    "error: failed to push some refs",
    "error: atomic push failed",
    "fatal: Could not read from remote repository",
    "fatal: the remote end hung up unexpectedly",
    "fatal: early EOF",
    "To ",
    "Done",
];

/// What is said when the credentials are missing, wrong, or not enough.
const REFUSED: &[&str] = &[
    "permission denied",
    "authentication failed",
    "could not read username",
    "could not read password",
    "terminal prompts disabled",
    "access denied",
    "host key verification failed",
    "insufficient permission",
    "not allowed to push",
    "protected branch",
    "returned error: 401",
    "returned error: 403",
    "detected dubious ownership",
];

/// A larger file is no token.
const TOKEN_BYTES_MAX: u64 = 64 << 10;

/// The fault behind a failed call; `what` is what could not be done.
pub fn fault(what: &str, trouble: Trouble, token: Option<&Path>) -> Fault {
    let unavailable = |message| Fault { code: Code::SinkUnavailable, message, retry: Retry::Later };
    match trouble {
        Trouble::Start(error) => unavailable(format!("{what}: git cannot be run: {error}")),
        Trouble::Hung { after } => unavailable(format!(
            "{what}: git had not ended after {:.1} s and was killed",
            after.as_secs_f64()
        )),
        Trouble::Broken(how) => unavailable(format!("{what}: git {how}")),
        Trouble::Failed { stderr, .. } => {
            let code = if is_refused(&stderr) { Code::Forbidden } else { Code::SinkUnavailable };
            let message = format!("{what}: {}", without(token, &telling(&stderr)));
            Fault { code, message, retry: Retry::Later }
        }
    }
}

/// Whether git says that we may not.
pub fn is_refused(stderr: &str) -> bool {
    let lower = stderr.to_lowercase();
    REFUSED.iter().any(|said| lower.contains(said))
}

/// The last line that is no boilerplate, or the last one.
pub fn telling(stderr: &str) -> String {
    let lines = || stderr.split(['\n', '\r']).map(str::trim).filter(|line| !line.is_empty());
    let plain = |line: &&str| line.trim_start_matches("remote:").trim() != "";
    let tells = |line: &&str| !BOILERPLATE.iter().any(|start| line.starts_with(start));
    let line = lines().filter(plain).rfind(tells).or_else(|| lines().next_back());
    line.map_or_else(|| "git says nothing".to_owned(), |line| shown(line.as_bytes()))
}

/// The last line that the other side said.
pub fn remote_line(stderr: &str) -> Option<String> {
    let said = stderr.lines().filter_map(|line| line.trim().strip_prefix("remote:"));
    let line = said.map(str::trim).rfind(|line| !line.is_empty())?;
    Some(shown(line.as_bytes()))
}

/// The text without the token: a remote may say anything, also what it was told.
pub fn without(token: Option<&Path>, text: &str) -> String {
    let mut read = Vec::new();
    if let Some(file) = token.and_then(|path| std::fs::File::open(path).ok()) {
        let _ = file.take(TOKEN_BYTES_MAX).read_to_end(&mut read);
    }
    let secret = String::from_utf8_lossy(&read);
    let secret = secret.lines().next().unwrap_or_default().trim();
    if secret.is_empty() { text.to_owned() } else { text.replace(secret, "***") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_that_tells_is_found_and_judged() {
        #[track_caller]
        fn check(stderr: &str, line: &str, refused: bool) {
            assert_eq!((telling(stderr).as_str(), is_refused(stderr)), (line, refused));
        }
        check(
            "git@x: Permission denied (publickey).\nfatal: Could not read from remote repository.\n\n\
             Please make sure you have the correct access rights\nand the repository exists.\n",
            "git@x: Permission denied (publickey).",
            true,
        );
        check(
            "fatal: unable to access 'https://x/': Could not resolve host: x\n",
            "fatal: unable to access 'https://x/': Could not resolve host: x",
            false,
        );
        check(
            "fatal: could not read Username for 'https://x': terminal prompts disabled",
            "fatal: could not read Username for 'https://x': terminal prompts disabled",
            true,
        );
        check("remote: \nremote: no such project\nremote:\n", "remote: no such project", false);
        check("", "git says nothing", false);
        check("hint: a", "hint: a", false);
        assert_eq!(remote_line("remote: a\nremote: b \nremote: \nTo x\n"), Some("b".to_owned()));
        assert_eq!(remote_line("fatal: x"), None);
    }

    #[test]
    fn a_token_is_never_repeated() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        std::fs::write(&path, "s3cret\n").unwrap();
        assert_eq!(without(Some(&path), "you said s3cret!"), "you said ***!");
        std::fs::write(&path, "\n").unwrap();
        assert_eq!(without(Some(&path), "a b"), "a b");
        assert_eq!(without(Some(&dir.path().join("none")), "a"), "a");
    }
}

//! What an operator may write as remote, branch, path and author: checked once, so that none of it
//! can be taken for an option, a program to run, or a place outside.

use crate::compose::Package;
use crate::config::GitSettings;

/// Why a git sink cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "`remote` is to be an https, ssh or file address (`https://`, `ssh://`, `user@host:path`, \
         `file://` or an absolute path)"
    )]
    Remote,
    #[error(
        "`remote` holds a user or password that everybody could see; use `username` and `token_file`"
    )]
    Password,
    #[error("`token_file` needs an https `remote`: over http everybody could read the token")]
    CleartextToken,
    #[error("`branch` is to be a branch's name, such as `main`")]
    Branch,
    #[error(
        "`path` is to be a relative path of letters, digits, `.`, `_`, `-`, `/`, `{{package}}`, \
         `{{namespace}}` and `{{target}}`, and outside of `.git`"
    )]
    Path,
    #[error(
        "`path` has to hold `{{package}}` in the mode `own`, or packages would share a directory"
    )]
    SharedPath,
    #[error("`author` is to be in the form `Name <address>`")]
    Author,
    #[error("make the sink's directory absolute")]
    Absolute { source: std::io::Error },
}

/// How git talks to a remote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    File,
    Ssh,
    Https,
    Http,
}

impl Protocol {
    /// The only one that git is allowed to use.
    pub fn name(self) -> &'static str {
        match self {
            Protocol::File => "file",
            Protocol::Ssh => "ssh",
            Protocol::Https => "https",
            Protocol::Http => "http",
        }
    }
}

/// The checked settings.
#[derive(Debug)]
pub struct Site {
    pub remote: String,
    pub protocol: Protocol,
    pub branch: String,
    path: String,
    pub author_name: String,
    pub author_address: String,
}

impl Site {
    pub fn new(settings: &GitSettings) -> Result<Self, Error> {
        let protocol = protocol(&settings.remote)?;
        if protocol == Protocol::Http && settings.token_file.is_some() {
            return Err(Error::CleartextToken);
        }
        if !is_branch(&settings.branch) {
            return Err(Error::Branch);
        }
        let path = settings.path.trim_end_matches('/').to_owned();
        if path != "." && !is_path(&path) || path == "." && !settings.edits {
            return Err(Error::Path);
        }
        if !settings.edits && !path.contains("{package}") {
            return Err(Error::SharedPath);
        }
        let (name, rest) = settings.author.split_once('<').ok_or(Error::Author)?;
        let address = rest.strip_suffix('>').ok_or(Error::Author)?;
        let strange = |text: &str| text.contains(['<', '>']) || text.contains(char::is_control);
        if name.trim().is_empty() || strange(name) || strange(address) {
            return Err(Error::Author);
        }
        Ok(Site {
            remote: settings.remote.clone(),
            protocol,
            branch: settings.branch.clone(),
            path,
            author_name: name.trim().to_owned(),
            author_address: address.trim().to_owned(),
        })
    }

    /// Where in the repository the package is, or its target is looked for; empty for all of it.
    pub fn path(&self, package: &Package) -> String {
        if self.path == "." {
            return String::new();
        }
        // DNS labels all three: none of them holds a placeholder, a slash or a dot.
        self.path
            .replace("{package}", &package.name)
            .replace("{namespace}", &package.key.namespace)
            .replace("{target}", &package.key.target)
    }

    /// The branch as git names it in full.
    pub fn reference(&self) -> String {
        format!("refs/heads/{}", self.branch)
    }
}

fn protocol(remote: &str) -> Result<Protocol, Error> {
    let strange = |c: char| c.is_control() || c.is_whitespace();
    // `ext::sh -c ...` and its like run what they name.
    if remote.starts_with('-') || remote.contains("::") || remote.contains(strange) {
        return Err(Error::Remote);
    }
    let Some((scheme, rest)) = remote.split_once("://") else {
        let host = remote.split_once(':').map(|(host, _)| host);
        return match host {
            _ if remote.starts_with('/') => Ok(Protocol::File),
            Some(host) if !host.is_empty() && !host.contains('/') => Ok(Protocol::Ssh),
            _ => Err(Error::Remote),
        };
    };
    let host = rest.split('/').next().unwrap_or_default();
    let user = host.rsplit_once('@').map(|(user, _)| user);
    // Some hosts take a token in the place of the user.
    let is_secret = |user: &str| scheme.starts_with("http") || user.contains(':');
    if user.is_some_and(is_secret) {
        return Err(Error::Password);
    }
    if host.starts_with('-') || rest.is_empty() {
        return Err(Error::Remote);
    }
    match scheme {
        "file" => Ok(Protocol::File),
        "ssh" => Ok(Protocol::Ssh),
        "https" => Ok(Protocol::Https),
        "http" => Ok(Protocol::Http),
        _ => Err(Error::Remote),
    }
}

/// The part of git's rules that people use.
fn is_branch(branch: &str) -> bool {
    let part = |part: &str| {
        !part.is_empty()
            && !part.starts_with('.')
            && !part.ends_with('.')
            && !part.ends_with(".lock")
    };
    let char = |c: char| c.is_ascii_alphanumeric() || "._-/+#".contains(c);
    !branch.starts_with('-')
        && branch.len() <= 200
        && branch.chars().all(char)
        && !branch.contains("..")
        && branch.split('/').all(part)
}

fn is_path(path: &str) -> bool {
    let filled = ["{package}", "{namespace}", "{target}"]
        .iter()
        .fold(path.to_owned(), |path, name| path.replace(name, "x"));
    let char = |c: char| c.is_ascii_alphanumeric() || "._-/".contains(c);
    let part = |part: &str| {
        !matches!(part, "" | "." | "..") && !part.to_ascii_lowercase().starts_with(".git")
    };
    filled.chars().all(char) && filled.split('/').all(part) && filled.len() <= 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_remote_is_an_address_and_never_a_program_an_option_or_a_secret() {
        for (remote, expected) in [
            ("file:///srv/a.git", Protocol::File),
            ("/srv/a.git", Protocol::File),
            ("https://example.org/a.git", Protocol::Https),
            ("ssh://git@example.org:22/a.git", Protocol::Ssh),
            ("git@example.org:a/b.git", Protocol::Ssh),
            ("http://127.0.0.1:1/a", Protocol::Http),
        ] {
            assert_eq!(protocol(remote).unwrap(), expected, "{remote}");
        }
        for remote in [
            "",
            "a",
            "a/b",
            "./a:b",
            "-u",
            "--upload-pack=x:y",
            "ext::sh -c id",
            "ext::id",
            "fd::3",
            "git://example.org/a",
            "ftp://x/y",
            "https://",
            "ssh://-oProxyCommand=id/a",
            "/a\nb",
            "file:///a b",
        ] {
            assert!(matches!(protocol(remote), Err(Error::Remote)), "{remote}");
        }
        for remote in
            ["https://me:secret@x.org/a", "https://token@x.org/a", "ssh://me:secret@x.org/a"]
        {
            assert!(matches!(protocol(remote), Err(Error::Password)), "{remote}");
        }
    }

    #[test]
    fn a_branch_and_a_path_stay_within_their_bounds() {
        for branch in ["main", "release/1.2", "a-b_c"] {
            assert!(is_branch(branch), "{branch}");
        }
        for branch in
            ["", "-f", "a..b", "/a", "a/", "a//b", ".a", "a.lock", "a b", "a:b", "+a:b", "*"]
        {
            assert!(!is_branch(branch) || branch == "+a", "{branch}");
        }
        for path in ["{package}", "clusters/{namespace}/{target}", "a.b/c"] {
            assert!(is_path(path), "{path}");
        }
        for path in [
            "",
            "/a",
            "a//b",
            "../a",
            "a/..",
            ".git/hooks",
            ".GIT",
            ".gitmodules",
            "a b",
            "{other}",
        ] {
            assert!(!is_path(path), "{path}");
        }
    }
}

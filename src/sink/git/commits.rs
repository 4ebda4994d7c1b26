//! Makes a commit from objects alone, and offers it to the remote.

use std::fmt::Write as _;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::model::Code;
use crate::sink::git::clone::{Clone, SHORT_BYTES_MAX};
use crate::sink::git::program::Trouble;
use crate::sink::git::saying;
use crate::sink::git::site::Site;
use crate::sink::{Fault, Retry};

/// Where our last commit stands in the clone, so that it is not collected.
const NEXT: &str = "refs/intentd/next";

/// A file that is to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    pub path: String,
    pub mode: String,
    pub text: String,
}

/// How a push ended.
#[derive(Debug)]
pub enum Pushed {
    Accepted,
    /// Somebody else was first.
    Moved,
    /// A rule of the remote declined what the commit holds.
    Declined(Fault),
}

impl Clone {
    /// Makes a commit of the changes on the base, and gives its name.
    pub fn commit(
        &mut self,
        base: Option<&str>,
        changes: &[Change],
        message: &str,
        due: Instant,
    ) -> Result<String, Fault> {
        let stream = stream(&self.site, base, changes, message);
        let import = ["fast-import", "--quiet", "--force", "--done"];
        let printed = self.local(&import, &stream, due)?;
        let id = String::from_utf8_lossy(&printed).trim().to_owned();
        if !is_id(&id) {
            return Err(self.damaged("made a commit without a name"));
        }
        if !self.is_signed {
            return Ok(id);
        }
        let (name, address) = (&self.site.author_name, &self.site.author_address);
        let (name, address) = (format!("user.name={name}"), format!("user.email={address}"));
        let tree = format!("{id}^{{tree}}");
        let mut sign = vec!["-c", &name, "-c", &address, "commit-tree", "-S", "-F", "-"];
        sign.extend(base.into_iter().flat_map(|base| ["-p", base]));
        sign.push(&tree);
        match self.git(&sign, message.as_bytes(), SHORT_BYTES_MAX, due) {
            Ok(printed) => Ok(String::from_utf8_lossy(&printed).trim().to_owned()),
            Err(trouble) => Err(self.fault("the commit cannot be signed", trouble)),
        }
    }

    /// Offers the commit to the remote, which takes it only on top of what it has.
    pub fn push(&mut self, commit: &str, due: Instant) -> Result<Pushed, Fault> {
        let refspec = format!("{commit}:{}", self.site.reference());
        let remote = self.site.remote.clone();
        let push = ["push", "--porcelain", "--no-verify", "--", &remote, &refspec];
        match self.git(&push, b"", SHORT_BYTES_MAX, due) {
            Ok(_) => Ok(Pushed::Accepted),
            Err(Trouble::Failed { stdout, stderr }) => match rejection(&stdout) {
                Some(reason) => self.rejected(&reason, &stderr),
                None => {
                    let trouble = Trouble::Failed { stdout, stderr };
                    Err(self.afar("did not take the push", trouble))
                }
            },
            Err(trouble) => Err(self.afar("did not take the push", trouble)),
        }
    }

    fn rejected(&self, reason: &str, stderr: &str) -> Result<Pushed, Fault> {
        // Somebody else's push was faster, or is under way.
        const MOVED: &[&str] = &["fetch first", "non-fast-forward", "failed to update ref", "lock"];
        if MOVED.iter().any(|moved| reason.contains(moved)) {
            return Ok(Pushed::Moved);
        }
        let line = saying::remote_line(stderr).unwrap_or_else(|| saying::telling(stderr));
        let said = saying::without(self.token.as_deref(), &line);
        let reason = saying::without(self.token.as_deref(), reason);
        let message =
            format!("the remote `{}` declined the push ({reason}): {said}", self.site.remote);
        // A host may keep some paths from us, a hook may judge what is in the files: it may be one of
        // the batch that stands in the way of the others.
        if saying::is_refused(&reason) || saying::is_refused(stderr) {
            let code = Code::Forbidden;
            return Ok(Pushed::Declined(Fault { code, message, retry: Retry::Later }));
        }
        if reason.contains("declined") || reason.contains("prohibited") {
            let code = Code::AdmissionDenied;
            return Ok(Pushed::Declined(Fault { code, message, retry: Retry::Never }));
        }
        Err(Fault { code: Code::SinkUnavailable, message, retry: Retry::Later })
    }
}

/// What `git fast-import` reads.
fn stream(site: &Site, base: Option<&str>, changes: &[Change], message: &str) -> Vec<u8> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let who = format!("{} <{}> {now} +0000", site.author_name, site.author_address);
    let mut text = format!(
        "feature done\nfeature get-mark\ncommit {NEXT}\nmark :1\nauthor {who}\ncommitter {who}\ndata \
         {}\n{message}\n",
        message.len()
    );
    if let Some(base) = base {
        let _ = writeln!(text, "from {base}");
    }
    for Change { path, mode, text: content } in changes {
        // A path in quotes may hold everything but what the quotes themselves take.
        let path = path.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        let _ = writeln!(text, "M {mode} inline \"{path}\"\ndata {}\n{content}", content.len());
    }
    text.push_str("\nget-mark :1\ndone\n");
    text.into_bytes()
}

fn is_id(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Why the one reference was not updated, as `git push --porcelain` has it in brackets.
fn rejection(porcelain: &str) -> Option<String> {
    let line = porcelain.lines().find(|line| line.starts_with('!'))?;
    let reason = line.rsplit_once(" (").map_or(line, |(_, reason)| reason);
    Some(reason.trim_end_matches(')').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_of_a_rejection_is_what_stands_in_brackets() {
        let said =
            "To /x\n!\t0a:refs/heads/main\t[remote rejected] (pre-receive hook declined)\nDone\n";
        assert_eq!(rejection(said).as_deref(), Some("pre-receive hook declined"));
        assert_eq!(rejection("To /x\n \ta:b\t1..2\nDone\n"), None);
    }
}

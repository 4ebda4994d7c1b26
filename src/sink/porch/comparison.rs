//! What a delivery would change in a package, told by reading the newest published revision.
//!
//! No dry-run is sent: Porch carries it out.

use std::time::Instant;

use crate::compose::Package;
use crate::compose::edit::Files;
use crate::config::PorchSettings;
use crate::limits::DELIVERY_MAX;
use crate::model::{Code, Intent, Seq};
use crate::sink::cluster::{Clusters, Trouble};
use crate::sink::porch::Porch;
use crate::sink::porch::decide::owned;
use crate::sink::porch::refusal;
use crate::sink::porch::seen::{Look, Revision};
use crate::sink::porch::wanted::{Content, Plan, Wanted};
use crate::sink::{Change, Comparison, Fault, Retry};

/// Asks the server and changes nothing there.
///
/// # Errors
///
/// The fault that the delivery would meet.
pub fn compare(
    settings: &PorchSettings,
    clusters: &Clusters,
    intent: &Intent,
    package: &Package,
) -> Result<Comparison, Fault> {
    let fault = |code, message| Fault { code, message, retry: Retry::Never };
    let porch = Porch::new("diff".to_owned(), settings, clusters)
        .map_err(|error| fault(Code::SinkUnavailable, error.to_string()))?;
    let wanted = Wanted::new(Seq(0), "", intent, package, settings);
    if let Some(fault) = wanted.refusal(&porch.site.repository) {
        return Err(fault);
    }
    let deadline = Instant::now() + DELIVERY_MAX;
    porch.check(deadline)?;
    let line = porch.line(deadline);
    let told = |trouble: Trouble| {
        let what = format!("read package `{}`", wanted.package);
        refusal::fault(&what, &porch.site.repository, &trouble)
    };
    let found = match line.wait(line.latest(wanted.package)).map_err(told)? {
        Look::Found(Revision { owner: Some(owner), .. }) => return Err(owned(&wanted, &owner)),
        Look::Found(latest) => Some(line.wait(line.texts(&latest.name)).map_err(told)?.files),
        Look::Unknown | Look::Absent => None,
    };
    if found.is_none() && matches!(wanted.content, Content::Edit { .. }) {
        let message = format!("package `{}` has no published revision", wanted.package);
        return Err(fault(Code::TargetNotFound, message));
    }
    let is_new = found.is_none();
    let files: Files = found.unwrap_or_default();
    match wanted.plan(&files, is_new) {
        Plan::Same => Ok(Comparison::Same),
        Plan::Refused(fault) => Err(fault),
        Plan::Change(changes) => Ok(Comparison::Different(
            changes
                .into_iter()
                .map(|(path, after)| Change {
                    before: files.get(&path).cloned().unwrap_or_default(),
                    path: format!("{}/{path}", wanted.package),
                    after,
                })
                .collect(),
        )),
    }
}

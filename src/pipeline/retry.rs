//! What `retry` does where nobody leads: it takes the lead for a moment, and delivers nothing.

use crate::ledger::Changes;
use crate::pipeline::{Error, Leadership, now};
use crate::processor::{Window, archive, recovery};

/// Carries out all requests that wait, then lets go of the lead. What becomes pending again is left to
/// the next leader, like everything else that is open.
///
/// # Errors
///
/// The ledger, the spool or the directory of requests failed; what was committed is finished by the
/// next leader.
pub fn alone(leadership: Leadership) -> Result<(), Error> {
    let Leadership { lead, mut writer, left, spool, requests, .. } = leadership;
    // What an earlier leader finished has to be archived before it can be taken back.
    let window = Window::default();
    let mut archived = Vec::new();
    for open in left.unarchived {
        let seq = open.record.seq;
        if let Some(request) = recovery::repeated(open, &window) {
            archive::archive(&spool, &request).map_err(Error::Spool)?;
            archived.push(seq);
        }
    }
    if !archived.is_empty() {
        spool.sync_archive().map_err(Error::Spool)?;
        lead.mark()?;
        let changes = Changes { archived, ..Changes::default() };
        writer.commit(&changes).map_err(Error::Ledger)?;
    }
    for request in requests.waiting().map_err(Error::Requests)? {
        let revival = writer.revive(&request.id, &request.seqs, now()).map_err(Error::Ledger)?;
        // Nothing is on its way to the archive any more, so nothing has to wait.
        let Some(revival) = revival else { continue };
        lead.check_lead()?;
        for open in &revival.revived {
            archive::restore(&spool, open).map_err(Error::Spool)?;
        }
        spool.sync_claims().map_err(Error::Spool)?;
        requests.answer(&request.id, revival.answers).map_err(Error::Requests)?;
    }
    writer.close().map_err(Error::Ledger)
}

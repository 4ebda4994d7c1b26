//! Carries out what was decided, request by request, and takes in what the answers say.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use futures_util::future::join;
use http::Method;
use serde_json::{Value, json};

use crate::compose::edit::Files;
use crate::fault;
use crate::model::{Code, Seq};
use crate::sink::cluster::{Call, Content, Trouble, Turn};
use crate::sink::porch::decide::{Decision, copied_from, decide};
use crate::sink::porch::line::Line;
use crate::sink::porch::refusal::{self, Meaning};
use crate::sink::porch::seen::{Look, Note, Revision, Seen, Stage, Texts};
use crate::sink::porch::wanted::{APPROVAL, Wanted};
use crate::sink::porch::wire::{PackageRevision, Resources};
use crate::sink::{Answer, Confirmation, Context, Fatal, Fault, Retry, Step};

/// Requests of one delivery: three times those of the longest way without a fault.
const REQUESTS_MAX: usize = 60;

/// How often a delivery looks anew at what has changed under its hands; then the delay of a retry
/// helps more.
const LOOKS_MAX: u32 = 5;

/// How long readiness gates are waited for: specializers of Nephio take seconds, people minutes.
const GATES_MAX: Duration = Duration::from_secs(600);

/// Longest time between two looks at a gate.
const GATE_LOOK_MAX: u64 = 30;

/// How long it counts that nothing newer was published than what ours was made from: what was seen
/// while the files were written is good for the proposal, unless Porch is slow.
const CHECK_AGE_MAX: Duration = Duration::from_secs(2);

/// One delivery on its way.
pub struct Cycle<'a> {
    pub line: Line<'a>,
    pub wanted: Wanted<'a>,
    pub context: &'a Context<'a>,
    pub seq: Seq,
    pub seen: Seen,
    pub note: Option<Note>,
    /// Held from the first write on, or from the start.
    turn: Option<Turn>,
    /// When it was seen that ours was made from the newest.
    checked: Instant,
    looks: u32,
}

impl<'a> Cycle<'a> {
    /// `seen` is what is known before the first request.
    pub fn new(
        line: Line<'a>,
        wanted: Wanted<'a>,
        context: &'a Context<'a>,
        note: Option<Note>,
        seen: Seen,
        turn: Option<Turn>,
    ) -> Self {
        let (seq, checked) = (wanted.seq, Instant::now());
        Cycle { line, seq, wanted, context, seen, note, turn, checked, looks: 0 }
    }

    /// Goes on until there is an answer.
    pub fn run(&mut self) -> Result<Answer, Fatal> {
        for _ in 0..REQUESTS_MAX {
            if Instant::now() >= self.line.deadline {
                break;
            }
            if self.is_check_old() {
                self.seen.is_source_latest = None;
            }
            let decision = decide(&self.seen, &self.wanted, self.note.as_ref());
            match decision {
                Decision::Done { revision, unchanged } => return Ok(done(&revision, unchanged)),
                Decision::Refuse(fault) => return Ok(Answer::Failed(fault)),
                Decision::Wait { gate } => return Ok(self.wait(&gate)),
                _ => {}
            }
            if let Some(stage) = decision.stage(&self.wanted) {
                let takes_away = matches!(stage, Stage::Clear | Stage::Restart);
                if takes_away && self.turn.is_none() {
                    if let Err(fault) = self.take_turn() {
                        return Ok(Answer::Failed(fault));
                    }
                    // A deletion depends on no version, and what was seen may have been published
                    // while others had their turn.
                    self.look_anew();
                    continue;
                }
                self.announce(stage, &decision)?;
                if let Err(fault) = self.take_turn() {
                    return Ok(Answer::Failed(fault));
                }
                if stage == Stage::Propose && self.is_check_old() {
                    continue;
                }
                self.context.fence.check()?;
            }
            if let Err(trouble) = self.carry_out(&decision)
                && let Err(fault) = self.take_in(&decision, &trouble)
            {
                return Ok(Answer::Failed(fault));
            }
        }
        Ok(Answer::Failed(Fault {
            code: Code::SinkUnavailable,
            message: format!(
                "package `{}` in repository `{}` did not come to rest in time",
                self.wanted.package, self.line.site.repository
            ),
            retry: Retry::Later,
        }))
    }

    fn is_check_old(&self) -> bool {
        self.checked.elapsed() > CHECK_AGE_MAX
    }

    /// Waits for the turn, if it is not ours yet.
    fn take_turn(&mut self) -> Result<(), Fault> {
        if self.turn.is_none() {
            self.turn = Some(self.line.turn()?);
        }
        Ok(())
    }

    /// Whether nothing has gone wrong: then no other revision of this intent can turn up again.
    pub fn is_smooth(&self) -> bool {
        self.looks == 0 && !self.seen.is_lost && self.note.as_ref().is_none_or(|it| it.round == 0)
    }

    /// Keeps what is about to happen. Waits until it is durable, unless a resumed delivery does as well
    /// with what was kept before.
    fn announce(&mut self, step: Stage, decision: &Decision) -> Result<(), Fatal> {
        let kept = self.note.take();
        let kept_step = kept.as_ref().map(|note| note.step);
        let (mut round, mut source) = kept.map_or((0, None), |note| (note.round, note.source));
        if let Decision::Create { round: fresh, source: copied } = decision {
            (round, source) = (*fresh, copied.clone());
        }
        let note = Note { step, round, source, waited_seconds: 0 };
        let text = Step(note.text());
        match kept_step.is_some_and(|before| step.may_follow_unseen(before)) {
            true => drop(self.context.journal.begin(&[(self.seq, text)])?),
            false => self.context.journal.record(self.seq, &text)?,
        }
        self.note = Some(note);
        Ok(())
    }

    fn wait(&self, gate: &str) -> Answer {
        let kept = self.note.clone();
        let mut note =
            kept.unwrap_or(Note { step: Stage::Wait, round: 0, source: None, waited_seconds: 0 });
        let waited = if note.step == Stage::Wait { note.waited_seconds } else { 0 };
        if waited >= GATES_MAX.as_secs() {
            return Answer::Failed(Fault {
                code: Code::RepositoryNotReady,
                message: format!(
                    "the readiness gate `{gate}` of package `{}` was still closed after {waited} s",
                    self.wanted.package
                ),
                retry: Retry::Never,
            });
        }
        let again = (waited / 2).clamp(1, GATE_LOOK_MAX);
        (note.step, note.waited_seconds) = (Stage::Wait, waited + again);
        Answer::Pending { step: Step(note.text()), again: Duration::from_secs(again) }
    }

    fn carry_out(&mut self, decision: &Decision) -> Result<(), Trouble> {
        let (line, site) = (self.line, self.line.site);
        match decision {
            Decision::Survey => {
                let (package, target) = (self.wanted.package, self.wanted.target());
                let (ours, latest) = line.wait(line.survey(package, &target))?;
                (self.seen.unpublished, self.seen.latest) = (Some(ours), latest);
            }
            Decision::ListOurs => {
                let (package, target) = (self.wanted.package, self.wanted.target());
                self.seen.unpublished = Some(line.wait(line.unpublished(package, &target))?);
            }
            Decision::FindLatest => {
                self.seen.latest = line.wait(line.latest(self.wanted.package))?;
            }
            Decision::ReadLatest { name } => {
                self.seen.latest_files = Some(line.wait(line.texts(name))?);
            }
            Decision::ReadCandidate { name } => {
                self.seen.candidate = Some((name.clone(), line.wait(line.texts(name))?));
            }
            Decision::Get { round } => {
                let workspace = self.wanted.workspace(*round);
                let name = site.name(self.wanted.package, &workspace);
                match line.wait(line.revision(&name))? {
                    Look::Found(revision) => self.found(revision),
                    _ => self.seen.own = Look::Absent,
                }
            }
            Decision::ReadOwn { name } => {
                let texts = line.wait(line.texts(name))?;
                self.read(texts);
            }
            Decision::CheckSource { source } => {
                let asked = line.is_newest(self.wanted.package, source.as_deref());
                let is_newest = line.wait(asked)?;
                self.check(is_newest, Instant::now());
            }
            Decision::Withdraw { revision } => {
                let body = lifecycle(revision, "Draft");
                let path = site.revision(&revision.name);
                let reply = fault::step("porch.withdraw", || line.wait(line.patch(&path, &body)))?;
                self.changed(reply.object::<PackageRevision>()?.into());
            }
            Decision::Delete { revision } => {
                let path = site.revision(&revision.name);
                let call = Call { method: Method::DELETE, ..Call::get(&path) };
                fault::step("porch.delete", || line.wait(line.call(&call)))?;
                self.deleted(revision);
            }
            Decision::Create { .. }
            | Decision::Adopt { .. }
            | Decision::Write { .. }
            | Decision::Annotate { .. }
            | Decision::Propose { .. }
            | Decision::Approve { .. } => self.advance(decision)?,
            Decision::Wait { .. } | Decision::Done { .. } | Decision::Refuse(_) => {}
        }
        Ok(())
    }

    /// Takes the intent's own revision one step further.
    fn advance(&mut self, decision: &Decision) -> Result<(), Trouble> {
        let (line, site) = (self.line, self.line.site);
        let reply = match decision {
            Decision::Create { round, source } => {
                let body = self.wanted.creation(&site.repository, *round, source.as_deref());
                let content = Content::Json(body.to_string().into_bytes());
                let path = site.revisions();
                let call = Call { method: Method::POST, path: &path, query: &[], content };
                self.seen.is_lost = false;
                let began = Instant::now();
                let reply = fault::step("porch.create", || line.wait(line.call(&call)))?;
                // A copy holds what its source holds, and a new one nothing that matters.
                let files = match source {
                    Some(_) => self.seen.latest_files.clone().unwrap_or_default(),
                    None => {
                        // It is refused where anything of the package is published.
                        self.check(true, began);
                        Texts::default()
                    }
                };
                self.seen.own_files = Some(Texts { render_error: None, ..files });
                reply
            }
            Decision::Write { revision, changes, checks } => {
                return self.write(revision, changes, *checks);
            }
            Decision::Adopt { revision, source } => {
                let mut body = json!({"metadata": self.wanted.marks(source.as_deref())});
                body["metadata"]["resourceVersion"] = revision.version.as_str().into();
                let path = site.revision(&revision.name);
                fault::step("porch.adopt", || line.wait(line.patch(&path, &body)))?
            }
            Decision::Annotate { revision } => {
                let mut body = json!({"metadata": {"resourceVersion": revision.version}});
                body["metadata"]["annotations"] = json!({APPROVAL: self.wanted.approval});
                let path = site.revision(&revision.name);
                fault::step("porch.annotate", || line.wait(line.patch(&path, &body)))?
            }
            Decision::Propose { revision } => {
                let mut body = lifecycle(revision, "Proposed");
                if let Some(approval) = self.wanted.approval {
                    body["metadata"]["annotations"] = json!({APPROVAL: approval});
                }
                let path = site.revision(&revision.name);
                let reply = fault::step("porch.propose", || line.wait(line.patch(&path, &body)))?;
                // That took Porch a while: before it is published it is looked again.
                self.seen.is_source_latest = None;
                reply
            }
            Decision::Approve { revision } => {
                let body = lifecycle(revision, "Published");
                let path = site.approval(&revision.name);
                fault::step("porch.approve", || line.wait(line.patch(&path, &body)))?
            }
            _ => return Ok(()),
        };
        self.found(reply.object::<PackageRevision>()?.into());
        Ok(())
    }

    /// Writes the files. With `checks` it is looked meanwhile whether what they are a copy of is still
    /// the newest; that this did not come off is no fault of the write's.
    fn write(&mut self, revision: &Revision, changes: &Files, checks: bool) -> Result<(), Trouble> {
        let (line, package) = (self.line, self.wanted.package);
        let path = line.site.resources(&revision.name);
        let body = json!({
            "metadata": {"resourceVersion": revision.version},
            "spec": {"resources": changes},
        });
        let source = copied_from(revision, self.note.as_ref());
        let asked = Instant::now();
        let check = async {
            match checks {
                true => line.is_newest(package, source.as_deref()).await.ok(),
                false => None,
            }
        };
        let (reply, checked) =
            fault::step("porch.write", || line.wait(join(line.patch(&path, &body), check)));
        let reply = reply?;
        self.seen.has_written = true;
        if let Some(is_newest) = checked {
            self.check(is_newest, asked);
        }
        let texts = Texts::from(reply.object::<Resources>()?);
        self.read(texts);
        Ok(())
    }

    /// Ours was made from the newest, or was not.
    fn check(&mut self, is_newest: bool, at: Instant) {
        (self.seen.is_source_latest, self.checked) = (Some(is_newest), at);
    }

    /// The intent's own revision is in an answer.
    fn found(&mut self, revision: Revision) {
        match revision.is_going {
            true => self.lose(),
            false => self.seen.own = Look::Found(revision),
        }
    }

    /// Its files are.
    fn read(&mut self, texts: Texts) {
        if texts.is_going {
            return self.lose();
        }
        if let Look::Found(own) = &mut self.seen.own {
            own.version.clone_from(&texts.version);
        }
        self.seen.own_files = Some(texts);
    }

    fn lose(&mut self) {
        self.seen.own = Look::Absent;
        (self.seen.own_files, self.seen.has_written) = (None, false);
        (self.seen.is_source_latest, self.seen.is_lost) = (None, true);
    }

    /// One of our revisions is a Draft again.
    fn changed(&mut self, revision: Revision) {
        if matches!(&self.seen.own, Look::Found(own) if own.name == revision.name) {
            return self.found(revision);
        }
        for there in self.seen.unpublished.iter_mut().flatten() {
            if there.name == revision.name {
                there.clone_from(&revision);
            }
        }
    }

    fn deleted(&mut self, revision: &Revision) {
        if let Some(ours) = &mut self.seen.unpublished {
            ours.retain(|there| there.name != revision.name);
        }
        if matches!(&self.seen.own, Look::Found(own) if own.name == revision.name) {
            self.lose();
            // Not lost: its name is free.
            self.seen.is_lost = false;
            (self.seen.latest, self.seen.latest_files) = (Look::Unknown, None);
        }
    }

    /// Decides what a request that did not succeed means for what was seen.
    fn take_in(&mut self, decision: &Decision, trouble: &Trouble) -> Result<(), Fault> {
        let what = deed(decision, self.wanted.package);
        let fault = || refusal::fault(&what, &self.line.site.repository, trouble);
        let is_write = decision.stage(&self.wanted).is_some();
        self.looks += 1;
        if self.looks > LOOKS_MAX {
            return Err(fault());
        }
        if matches!((decision, trouble), (Decision::Survey, Trouble::Lost { .. })) {
            // It may be longer than we take in.
            self.wanted.is_first = false;
            return Ok(());
        }
        match refusal::meaning(trouble) {
            Meaning::Fault | Meaning::Unknown if is_of_going(decision) => self.forget(decision),
            Meaning::Fault | Meaning::Busy => return Err(fault()),
            Meaning::Unknown if !is_write => return Err(fault()),
            Meaning::Unknown | Meaning::Moved => self.look_anew(),
            Meaning::NameTaken => {
                self.look_anew();
                // If it is not there all the same, the name cannot be used.
                self.seen.is_lost = true;
            }
            Meaning::PackageThere if self.looks > 1 => {
                return Err(Fault {
                    code: Code::PackageConflict,
                    message: format!(
                        "package `{}` is there as a draft of somebody else; publish or remove it",
                        self.wanted.package
                    ),
                    retry: Retry::Later,
                });
            }
            Meaning::PackageThere | Meaning::SourceGone => {
                (self.seen.latest, self.seen.latest_files) = (Look::Unknown, None);
            }
            Meaning::Gone => match decision {
                Decision::ReadLatest { .. } => self.seen.latest = Look::Unknown,
                Decision::Withdraw { .. } | Decision::Delete { .. } => self.forget(decision),
                Decision::ReadCandidate { .. } => self.seen.unpublished = None,
                _ => self.lose(),
            },
        }
        Ok(())
    }

    /// The revision that was to go is gone, or in nobody's way.
    fn forget(&mut self, decision: &Decision) {
        if let Decision::Withdraw { revision } | Decision::Delete { revision } = decision {
            self.deleted(revision);
        }
    }

    /// What was read may be old: also what is published, since a proposal of ours that has moved may
    /// be just that now.
    fn look_anew(&mut self) {
        (self.seen.latest, self.seen.latest_files) = (Look::Unknown, None);
        (self.seen.own, self.seen.own_files) = (Look::Unknown, None);
        (self.seen.unpublished, self.seen.candidate) = (None, None);
        (self.seen.is_source_latest, self.seen.has_written) = (None, false);
    }
}

/// Whether it only finishes a deletion that was cut off.
fn is_of_going(decision: &Decision) -> bool {
    matches!(decision, Decision::Delete { revision } if revision.is_going)
}

fn lifecycle(revision: &Revision, lifecycle: &str) -> Value {
    json!({
        "metadata": {"resourceVersion": revision.version},
        "spec": {"lifecycle": lifecycle},
    })
}

fn done(revision: &Revision, unchanged: bool) -> Answer {
    let mut further =
        BTreeMap::from([("lifecycle".to_owned(), Value::from(revision.lifecycle.as_str()))]);
    if revision.number > 0 {
        further.insert("revision".to_owned(), revision.number.into());
    }
    Answer::Done(Confirmation { location: revision.name.clone(), unchanged, further })
}

/// What was about to be done, for messages.
fn deed(decision: &Decision, package: &str) -> String {
    match decision {
        Decision::Survey => format!("list the revisions of package `{package}`"),
        Decision::ListOurs => format!("list our drafts of package `{package}`"),
        Decision::FindLatest => format!("look for package `{package}`"),
        Decision::ReadLatest { name }
        | Decision::ReadCandidate { name }
        | Decision::ReadOwn { name } => format!("read the files of `{name}`"),
        Decision::Get { .. } => format!("look for our revision of package `{package}`"),
        Decision::CheckSource { .. } => format!("look whether package `{package}` has changed"),
        Decision::Withdraw { revision } => format!("take back `{}`", revision.name),
        Decision::Delete { revision } => format!("delete `{}`", revision.name),
        Decision::Create { .. } => format!("create a revision of package `{package}`"),
        Decision::Write { revision, .. } => format!("write the files of `{}`", revision.name),
        Decision::Adopt { revision, .. } => format!("take up `{}`", revision.name),
        Decision::Annotate { revision } => format!("annotate `{}`", revision.name),
        Decision::Propose { revision } => format!("propose `{}`", revision.name),
        Decision::Approve { revision } => format!("approve `{}`", revision.name),
        Decision::Wait { .. } | Decision::Done { .. } | Decision::Refuse(_) => {
            format!("deliver to package `{package}`")
        }
    }
}

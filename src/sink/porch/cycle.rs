//! Carries out what was decided, request by request, and takes in what the answers say.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use http::Method;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::fault;
use crate::model::{Code, Seq};
use crate::sink::cluster::{Call, Cluster, Content, Reply, Trouble};
use crate::sink::porch::decide::{Decision, decide};
use crate::sink::porch::refusal::{self, Meaning};
use crate::sink::porch::seen::{Lifecycle, Look, Note, Revision, Seen, Stage, Texts};
use crate::sink::porch::site::Site;
use crate::sink::porch::wanted::{APPROVAL, LATEST, TARGET, Wanted};
use crate::sink::porch::wire::{PackageRevision, PackageRevisions, Resources};
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

/// The requests to one Repository.
#[derive(Clone, Copy, Debug)]
pub struct Line<'a> {
    pub cluster: &'a Cluster,
    pub site: &'a Site,
    /// Of one call.
    pub timeout: Duration,
    /// Of all of them.
    pub deadline: Instant,
}

impl Line<'_> {
    pub fn call(&self, call: &Call<'_>) -> Result<Reply, Trouble> {
        let due = self.deadline.min(Instant::now() + self.timeout);
        self.cluster.block_on(self.cluster.call(call, due))
    }

    pub fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Trouble> {
        self.call(&Call::get(path))?.object()
    }

    fn list(&self, labels: &str, fields: &str) -> Result<Vec<Revision>, Trouble> {
        let (path, fields) =
            (self.site.revisions(), format!("spec.repository={},{fields}", self.site.repository));
        let query = [("labelSelector", labels), ("fieldSelector", fields.as_str())];
        let call = Call { query: &query, ..Call::get(&path) };
        let listed: PackageRevisions = self.call(&call)?.object()?;
        Ok(listed.items.into_iter().map(Revision::from).collect())
    }

    /// The newest published revision; without one, what stands on the branch.
    pub fn latest(&self, package: &str) -> Result<Look<Revision>, Trouble> {
        match self.newest_published(package)? {
            Some(latest) => Ok(Look::Found(latest)),
            None => self.revision(&self.site.name(package, "main")),
        }
    }

    fn newest_published(&self, package: &str) -> Result<Option<Revision>, Trouble> {
        let fields = format!("spec.packageName={package}");
        let listed = self.list(&format!("{LATEST}=true"), &fields)?;
        Ok(listed.into_iter().find(|revision| revision.is_latest))
    }

    fn revision(&self, name: &str) -> Result<Look<Revision>, Trouble> {
        match self.get::<PackageRevision>(&self.site.revision(name)) {
            Ok(found) => Ok(Look::Found(found.into())),
            Err(trouble) if refusal::meaning(&trouble) == Meaning::Gone => Ok(Look::Absent),
            Err(trouble) => Err(trouble),
        }
    }

    pub fn texts(&self, name: &str) -> Result<Texts, Trouble> {
        Ok(self.get::<Resources>(&self.site.resources(name))?.into())
    }

    fn patch(&self, path: &str, body: &Value) -> Result<Reply, Trouble> {
        let content = Content::Merge(body.to_string().into_bytes());
        self.call(&Call { method: Method::PATCH, path, query: &[], content })
    }
}

/// One delivery on its way.
pub struct Cycle<'a> {
    pub line: Line<'a>,
    pub wanted: Wanted<'a>,
    pub context: &'a Context<'a>,
    pub seq: Seq,
    pub seen: Seen,
    pub note: Option<Note>,
    looks: u32,
}

impl<'a> Cycle<'a> {
    /// With `is_clean`, nothing of ours that is not published is left for the target.
    pub fn new(
        line: Line<'a>,
        wanted: Wanted<'a>,
        context: &'a Context<'a>,
        note: Option<Note>,
        is_clean: bool,
    ) -> Self {
        let seen = Seen { unpublished: is_clean.then(Vec::new), ..Seen::default() };
        Cycle { line, seq: wanted.seq, wanted, context, seen, note, looks: 0 }
    }

    /// Goes on until there is an answer.
    pub fn run(&mut self) -> Result<Answer, Fatal> {
        for _ in 0..REQUESTS_MAX {
            if Instant::now() >= self.line.deadline {
                break;
            }
            let decision = decide(&self.seen, &self.wanted, self.note.as_ref());
            match decision {
                Decision::Done { revision, unchanged } => return Ok(done(&revision, unchanged)),
                Decision::Refuse(fault) => return Ok(Answer::Failed(fault)),
                Decision::Wait { gate } => return Ok(self.wait(&gate)),
                _ => {}
            }
            if let Some(stage) = decision.stage(&self.wanted) {
                self.announce(stage, &decision)?;
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

    /// Whether nothing has gone wrong: then no other revision of this intent can turn up again.
    pub fn is_smooth(&self) -> bool {
        self.looks == 0 && !self.seen.is_lost && self.note.as_ref().is_none_or(|it| it.round == 0)
    }

    /// Keeps what is about to happen.
    fn announce(&mut self, step: Stage, decision: &Decision) -> Result<(), Fatal> {
        let kept = self.note.take();
        let (mut round, mut source) = kept.map_or((0, None), |note| (note.round, note.source));
        if let Decision::Create { round: fresh, source: copied } = decision {
            (round, source) = (*fresh, copied.clone());
        }
        let note = Note { step, round, source, waited_seconds: 0 };
        self.context.journal.record(self.seq, &Step(note.text()))?;
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
            Decision::ListOurs => {
                let labels = format!("{TARGET}={}", self.wanted.target());
                let mut ours = Vec::new();
                // Two questions, since `spec.revision=0` selects published ones as well.
                for lifecycle in [Lifecycle::Draft, Lifecycle::Proposed] {
                    let (package, lifecycle) = (self.wanted.package, lifecycle.as_str());
                    let fields = format!("spec.packageName={package},spec.lifecycle={lifecycle}");
                    ours.extend(line.list(&labels, &fields)?);
                }
                // Whatever was selected: what is published is never taken back.
                ours.retain(|it| !it.is_going && it.lifecycle < Lifecycle::Published);
                self.seen.unpublished = Some(ours);
            }
            Decision::FindLatest => self.seen.latest = line.latest(self.wanted.package)?,
            Decision::ReadLatest { name } => self.seen.latest_files = Some(line.texts(name)?),
            Decision::ReadCandidate { name } => {
                self.seen.candidate = Some((name.clone(), line.texts(name)?));
            }
            Decision::Get { round } => {
                let workspace = self.wanted.workspace(*round);
                match line.revision(&site.name(self.wanted.package, &workspace))? {
                    Look::Found(revision) => self.found(revision),
                    _ => self.seen.own = Look::Absent,
                }
            }
            Decision::ReadOwn { name } => {
                let texts = line.texts(name)?;
                self.read(texts);
            }
            Decision::CheckSource { source } => {
                self.seen.is_source_latest = Some(match source {
                    Some(source) if !source.ends_with(".main") => {
                        let found = line.revision(source)?;
                        matches!(found, Look::Found(revision) if revision.is_latest)
                    }
                    _ => line.newest_published(self.wanted.package)?.is_none(),
                });
            }
            Decision::Withdraw { revision } => {
                let body = lifecycle(revision, "Draft");
                let reply = fault::step("porch.withdraw", || {
                    line.patch(&site.revision(&revision.name), &body)
                })?;
                self.changed(reply.object::<PackageRevision>()?.into());
            }
            Decision::Delete { revision } => {
                let path = site.revision(&revision.name);
                let call = Call { method: Method::DELETE, ..Call::get(&path) };
                fault::step("porch.delete", || line.call(&call))?;
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
                let reply = fault::step("porch.create", || line.call(&call))?;
                // A copy holds what its source holds, and a new one nothing that matters.
                let files = match source {
                    Some(_) => self.seen.latest_files.clone().unwrap_or_default(),
                    None => Texts::default(),
                };
                self.seen.own_files = Some(Texts { render_error: None, ..files });
                reply
            }
            Decision::Write { revision, changes } => {
                let body = json!({
                    "metadata": {"resourceVersion": revision.version},
                    "spec": {"resources": changes},
                });
                let reply = fault::step("porch.write", || {
                    line.patch(&site.resources(&revision.name), &body)
                })?;
                self.seen.has_written = true;
                let texts = Texts::from(reply.object::<Resources>()?);
                self.read(texts);
                return Ok(());
            }
            Decision::Adopt { revision, source } => {
                let mut body = json!({"metadata": self.wanted.marks(source.as_deref())});
                body["metadata"]["resourceVersion"] = revision.version.as_str().into();
                fault::step("porch.adopt", || line.patch(&site.revision(&revision.name), &body))?
            }
            Decision::Annotate { revision } => {
                let mut body = json!({"metadata": {"resourceVersion": revision.version}});
                body["metadata"]["annotations"] = json!({APPROVAL: self.wanted.approval});
                fault::step("porch.annotate", || line.patch(&site.revision(&revision.name), &body))?
            }
            Decision::Propose { revision } => {
                let mut body = lifecycle(revision, "Proposed");
                if let Some(approval) = self.wanted.approval {
                    body["metadata"]["annotations"] = json!({APPROVAL: approval});
                }
                let path = site.revision(&revision.name);
                let reply = fault::step("porch.propose", || line.patch(&path, &body))?;
                // That took Porch a while: before it is published it is looked again.
                self.seen.is_source_latest = None;
                reply
            }
            Decision::Approve { revision } => {
                let body = lifecycle(revision, "Published");
                fault::step("porch.approve", || line.patch(&site.approval(&revision.name), &body))?
            }
            _ => return Ok(()),
        };
        self.found(reply.object::<PackageRevision>()?.into());
        Ok(())
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
        match refusal::meaning(trouble) {
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
                Decision::Withdraw { revision } | Decision::Delete { revision } => {
                    let revision = (**revision).clone();
                    self.deleted(&revision);
                }
                Decision::ReadCandidate { .. } => self.seen.unpublished = None,
                _ => self.lose(),
            },
        }
        Ok(())
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

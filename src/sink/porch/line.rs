//! The requests to one Repository, each under a deadline.

use std::future::Future;
use std::time::{Duration, Instant};

use futures_util::future::join;
use http::Method;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::sink::Fault;
use crate::sink::cluster::{Call, Cluster, Content, Reply, Trouble, Turn};
use crate::sink::porch::refusal::{self, Meaning};
use crate::sink::porch::seen::{Lifecycle, Look, Revision, Texts};
use crate::sink::porch::site::Site;
use crate::sink::porch::wanted::{LATEST, TARGET};
use crate::sink::porch::wire::{PackageRevision, PackageRevisions, Resources};

/// The way to one Repository.
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
    /// Has requests carried out, and waits for their answers.
    pub fn wait<F: Future>(&self, requests: F) -> F::Output {
        self.cluster.block_on(requests)
    }

    /// Waits until nobody else in this process writes to the Repository.
    pub fn turn(&self) -> Result<Turn, Fault> {
        let thing = format!("repository {}/{}", self.site.namespace, self.site.repository);
        self.wait(self.cluster.turn(&thing, self.deadline))
            .map_err(|trouble| trouble.fault(&format!("write to {thing}")))
    }

    pub async fn call(&self, call: &Call<'_>) -> Result<Reply, Trouble> {
        let due = self.deadline.min(Instant::now() + self.timeout);
        self.cluster.call(call, due).await
    }

    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Trouble> {
        self.call(&Call::get(path)).await?.object()
    }

    async fn list(&self, labels: &str, fields: &str) -> Result<Vec<Revision>, Trouble> {
        let (path, fields) =
            (self.site.revisions(), format!("spec.repository={},{fields}", self.site.repository));
        let query = [("labelSelector", labels), ("fieldSelector", fields.as_str())];
        let query = if labels.is_empty() { &query[1..] } else { &query[..] };
        let call = Call { query, ..Call::get(&path) };
        let listed: PackageRevisions = self.call(&call).await?.object()?;
        Ok(listed.items.into_iter().map(Revision::from).collect())
    }

    /// Our revisions for the target that are not published.
    pub async fn unpublished(&self, package: &str, target: &str) -> Result<Vec<Revision>, Trouble> {
        let labels = format!("{TARGET}={target}");
        let of = |lifecycle: Lifecycle| {
            format!("spec.packageName={package},spec.lifecycle={}", lifecycle.as_str())
        };
        // Two questions, since `spec.revision=0` selects published ones as well.
        let (drafts, proposed) = (of(Lifecycle::Draft), of(Lifecycle::Proposed));
        let (drafts, proposed) =
            join(self.list(&labels, &drafts), self.list(&labels, &proposed)).await;
        let mut ours = drafts?;
        ours.extend(proposed?);
        // Whatever was selected: what is published is never taken back.
        ours.retain(|it| it.lifecycle < Lifecycle::Published);
        Ok(ours)
    }

    /// What [`Line::unpublished`] and [`Line::latest`] give, in one answer that holds all revisions.
    pub async fn survey(
        &self,
        package: &str,
        target: &str,
    ) -> Result<(Vec<Revision>, Look<Revision>), Trouble> {
        let all = self.list("", &format!("spec.packageName={package}")).await?;
        let branch = self.site.name(package, "main");
        let find = |is_it: &dyn Fn(&Revision) -> bool| all.iter().find(|it| is_it(it)).cloned();
        let latest = find(&|it| it.is_latest).or_else(|| find(&|it| it.name == branch));
        let is_ours = |it: &Revision| {
            it.target.as_deref() == Some(target) && it.lifecycle < Lifecycle::Published
        };
        let latest = latest.map_or(Look::Absent, Look::Found);
        Ok((all.into_iter().filter(is_ours).collect(), latest))
    }

    /// The newest published revision; without one, what stands on the branch.
    pub async fn latest(&self, package: &str) -> Result<Look<Revision>, Trouble> {
        match self.newest_published(package).await? {
            Some(latest) => Ok(Look::Found(latest)),
            None => self.revision(&self.site.name(package, "main")).await,
        }
    }

    async fn newest_published(&self, package: &str) -> Result<Option<Revision>, Trouble> {
        let fields = format!("spec.packageName={package}");
        let listed = self.list(&format!("{LATEST}=true"), &fields).await?;
        Ok(listed.into_iter().find(|revision| revision.is_latest))
    }

    /// Whether that revision is the newest published one; without a name or with that of the branch,
    /// whether there is none.
    pub async fn is_newest(&self, package: &str, source: Option<&str>) -> Result<bool, Trouble> {
        match source {
            Some(source) if !source.ends_with(".main") => {
                let found = self.revision(source).await?;
                Ok(matches!(found, Look::Found(revision) if revision.is_latest))
            }
            _ => Ok(self.newest_published(package).await?.is_none()),
        }
    }

    pub async fn revision(&self, name: &str) -> Result<Look<Revision>, Trouble> {
        match self.get::<PackageRevision>(&self.site.revision(name)).await {
            Ok(found) => Ok(Look::Found(found.into())),
            Err(trouble) if refusal::meaning(&trouble) == Meaning::Gone => Ok(Look::Absent),
            Err(trouble) => Err(trouble),
        }
    }

    pub async fn texts(&self, name: &str) -> Result<Texts, Trouble> {
        Ok(self.get::<Resources>(&self.site.resources(name)).await?.into())
    }

    pub async fn patch(&self, path: &str, body: &Value) -> Result<Reply, Trouble> {
        let content = Content::Merge(body.to_string().into_bytes());
        self.call(&Call { method: Method::PATCH, path, query: &[], content }).await
    }
}

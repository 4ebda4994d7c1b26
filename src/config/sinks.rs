//! The tables `[sinks.NAME]`: from written values to the settings of each type of sink.

use std::path::PathBuf;
use std::time::Duration;

use crate::config::check::wrong;
use crate::config::layer::{Layers, Origin, SINK_NAME, Settings, is_sink_name, kind_and_keys};
use crate::config::value::Value;
use crate::config::{
    ClusterAccess, Confirmed, Error, GitSettings, HpaRule, KubectlSettings, KubernetesMode,
    KubernetesSettings, PorchPolicy, PorchSettings, SinkKind, SinkSettings, StdoutFormat, Workload,
};

/// The sinks that are named, in their order.
pub(super) fn check(layers: &Layers) -> Result<Vec<SinkSettings>, Error> {
    let mut sinks = Vec::<SinkSettings>::new();
    for name in layers.list("sink") {
        if !is_sink_name(&name) {
            return Err(wrong(layers, "sink", format!("a list of sinks, each {SINK_NAME}")));
        }
        if sinks.iter().any(|sink| sink.name == name) {
            continue;
        }
        let settings = layers.sinks.get(&name).expect("there is a table for every sink now");
        let kind = kind(&name, settings, &layers.origin("sink"))?;
        let rate = Table { name: &name, settings }.rate();
        sinks.push(SinkSettings { name, kind, rate });
    }
    match sinks.is_empty() {
        true => Err(wrong(layers, "sink", "at least one name".to_owned())),
        false => Ok(sinks),
    }
}

fn kind(name: &str, settings: &Settings, origin: &Origin) -> Result<SinkKind, Error> {
    let (kind, _) = kind_and_keys(name, settings, origin)?;
    let table = Table { name, settings };
    Ok(match kind.as_str() {
        "stdout" => SinkKind::Stdout {
            format: match table.needed("format")?.as_str() {
                "json" => StdoutFormat::Json,
                _ => StdoutFormat::Yaml,
            },
        },
        "exec" => SinkKind::Exec {
            command: match settings.get("command") {
                Some((Value::List(command), _))
                    if command.first().is_some_and(|it| !it.is_empty()) =>
                {
                    command.clone()
                }
                _ => return Err(table.needs("command")),
            },
            dir: table.dir(),
            timeout: table.time("timeout"),
        },
        "git" => SinkKind::Git(Box::new(git(&table)?)),
        "kubernetes" => SinkKind::Kubernetes(Box::new(kubernetes(&table)?)),
        "kubectl" => SinkKind::Kubectl(Box::new(kubectl(&table)?)),
        "porch" => SinkKind::Porch(Box::new(porch(&table)?)),
        _ => SinkKind::Package { dir: table.dir() },
    })
}

fn git(table: &Table<'_>) -> Result<GitSettings, Error> {
    Ok(GitSettings {
        remote: table.needed("remote")?,
        branch: table.needed("branch")?,
        edits: table.needed("mode")? == "edit",
        path: table.needed("path")?,
        kind: table.needed("kind")?,
        author: table.needed("author")?,
        program: table.needed("program")?,
        timeout: table.time("timeout"),
        token_file: table.path("token_file"),
        username: table.needed("username")?,
        ca_file: table.path("ca_file"),
        ssh_program: table.needed("ssh_program")?,
        ssh_key: table.path("ssh_key"),
        known_hosts: table.path("known_hosts"),
        signing_key: table.text("signing_key"),
        signing_format: table.needed("signing_format")?,
    })
}

fn kubernetes(table: &Table<'_>) -> Result<KubernetesSettings, Error> {
    Ok(KubernetesSettings {
        access: table.access(),
        mode: match table.needed("mode")?.as_str() {
            "ssa" => KubernetesMode::Ssa,
            "networkintent" => KubernetesMode::NetworkIntent,
            _ => KubernetesMode::Scale,
        },
        workload: table.workload()?,
        field_manager: table.field_manager()?,
        force: table.flag("force"),
        hpa: table.hpa()?,
        delivered: table.delivered()?,
        verify_timeout: table.time("verify_timeout"),
        timeout: table.time("timeout"),
        concurrency: table.count("concurrency"),
        whole_cluster: table.needed("watch")? == "cluster",
    })
}

fn kubectl(table: &Table<'_>) -> Result<KubectlSettings, Error> {
    Ok(KubectlSettings {
        access: table.access(),
        program: table.needed("program")?,
        workload: table.workload()?,
        hpa: table.hpa()?,
        delivered: table.delivered()?,
        verify_timeout: table.time("verify_timeout"),
        timeout: table.time("timeout"),
    })
}

fn porch(table: &Table<'_>) -> Result<PorchSettings, Error> {
    let edits = table.needed("mode")? == "edit";
    Ok(PorchSettings {
        access: table.access(),
        namespace: table.needed("namespace")?,
        repository: table.needed("repository")?,
        policy: match table.needed("policy")?.as_str() {
            "draft" => PorchPolicy::Draft,
            "approve" => PorchPolicy::Approve,
            _ => PorchPolicy::Propose,
        },
        edit_package: if edits { Some(table.needed("edit_package")?) } else { None },
        kind: table.needed("kind")?,
        approval: table.text("approval"),
        timeout: table.time("timeout"),
    })
}

/// One table, whose values have the forms that the keys ask for.
struct Table<'a> {
    name: &'a str,
    settings: &'a Settings,
}

impl Table<'_> {
    fn text(&self, key: &str) -> Option<String> {
        match self.settings.get(key) {
            Some((Value::Text(text), _)) if !text.is_empty() => Some(text.clone()),
            _ => None,
        }
    }

    fn needs(&self, key: &'static str) -> Error {
        Error::SinkNeeds { sink: self.name.to_owned(), key }
    }

    fn needed(&self, key: &'static str) -> Result<String, Error> {
        self.text(key).ok_or_else(|| self.needs(key))
    }

    fn path(&self, key: &str) -> Option<PathBuf> {
        self.text(key).map(PathBuf::from)
    }

    fn dir(&self) -> PathBuf {
        self.path("dir").expect("the sink's directory was filled in")
    }

    fn time(&self, key: &str) -> Duration {
        match self.settings.get(key) {
            Some((Value::Time(time), _)) => *time,
            _ => unreachable!("times have defaults"),
        }
    }

    fn count(&self, key: &str) -> usize {
        match self.settings.get(key) {
            Some((Value::Count(count), _)) => *count as usize,
            _ => unreachable!("counts have defaults"),
        }
    }

    fn rate(&self) -> Option<u32> {
        match self.settings.get("rate") {
            Some((Value::Count(count), _)) => u32::try_from(*count).ok(),
            _ => None,
        }
    }

    fn flag(&self, key: &str) -> bool {
        matches!(self.settings.get(key), Some((Value::Flag(true), _)))
    }

    fn access(&self) -> ClusterAccess {
        ClusterAccess { kubeconfig: self.path("kubeconfig"), context: self.text("context") }
    }

    fn workload(&self) -> Result<Workload, Error> {
        let kind = self.needed("kind")?;
        let plural = self.text("plural").unwrap_or_else(|| format!("{}s", kind.to_lowercase()));
        let api_version = self.needed("api_version")?;
        let (group, version) = api_version.split_once('/').unwrap_or(("", &api_version));
        let is_group = group.is_empty() != api_version.contains('/')
            && group.split('.').all(|it| group.is_empty() || is_label(it));
        // They become parts of addresses and of command lines.
        for (key, is_good, expected) in [
            (
                "kind",
                kind.bytes().all(|b| b.is_ascii_alphanumeric()),
                "a kind, such as `Deployment`",
            ),
            ("plural", is_label(&plural), "a kind's name in addresses, such as `deployments`"),
            (
                "api_version",
                is_group && is_label(version) && version.starts_with('v'),
                "a group and a version, such as `apps/v1`",
            ),
        ] {
            if !is_good {
                return Err(self.wrong(key, expected));
            }
        }
        Ok(Workload { api_version, kind, plural })
    }

    /// The server takes no other name for it.
    fn field_manager(&self) -> Result<String, Error> {
        let name = self.needed("field_manager")?;
        let is_good = name.chars().count() <= 128 && !name.chars().any(char::is_control);
        is_good.then_some(name).ok_or_else(|| {
            self.wrong("field_manager", "at most 128 characters that can be printed")
        })
    }

    fn wrong(&self, key: &'static str, expected: &str) -> Error {
        let (name, expected) = (self.name, expected.to_owned());
        match self.settings.get(key) {
            Some((_, origin)) => Error::Value {
                key: format!("sinks.{name}.{key}"),
                origin: origin.clone(),
                expected,
            },
            None => self.needs(key),
        }
    }

    fn hpa(&self) -> Result<HpaRule, Error> {
        Ok(match self.needed("hpa")?.as_str() {
            "floor" => HpaRule::Floor,
            "clamp" => HpaRule::Clamp,
            _ => HpaRule::Refuse,
        })
    }

    fn delivered(&self) -> Result<Confirmed, Error> {
        Ok(match self.needed("delivered")?.as_str() {
            "accepted" => Confirmed::Accepted,
            "converged" => Confirmed::Converged,
            _ => Confirmed::Observed,
        })
    }
}

/// Whether it is a name as DNS has them.
fn is_label(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    (1..=63).contains(&text.len())
        && text.bytes().all(plain)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

//! A directory with the script that stands for kubectl, and what the script answers from.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use intentd::config::{ClusterAccess, Confirmed, HpaRule, KubectlSettings, Workload};
use intentd::sink::kubectl::Kubectl;
use tempfile::TempDir;

const SCRIPT: &str = include_str!("fake.sh");

/// The settings by default, with this program.
pub fn settings(program: &str) -> KubectlSettings {
    KubectlSettings {
        access: ClusterAccess { kubeconfig: None, context: None },
        program: program.to_owned(),
        workload: Workload {
            api_version: "apps/v1".to_owned(),
            kind: "Deployment".to_owned(),
            plural: "deployments".to_owned(),
        },
        hpa: HpaRule::Refuse,
        delivered: Confirmed::Observed,
        verify_timeout: Duration::from_secs(300),
        timeout: Duration::from_secs(30),
    }
}

pub struct Bench {
    dir: TempDir,
}

impl Bench {
    /// Deployments in the namespace `ran-a`, all at rest.
    pub fn with(deployments: &[(&str, u32)]) -> Self {
        let bench = Bench { dir: tempfile::tempdir().unwrap() };
        for part in ["state", "hpa"] {
            fs::create_dir(bench.path(part)).unwrap();
        }
        bench.script("kubectl", SCRIPT);
        for (name, replicas) in deployments {
            bench.put("ran-a", name, *replicas);
        }
        bench
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn program(&self) -> String {
        self.path("kubectl").display().to_string()
    }

    pub fn text(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    /// Replaces a file as a whole: a script may be reading it.
    pub fn write(&self, name: &str, text: &str) {
        let temporary = self.path("written");
        fs::write(&temporary, text).unwrap();
        fs::rename(&temporary, self.path(name)).unwrap();
    }

    /// What every call does first.
    pub fn hook(&self, text: &str) {
        self.write("hook", &format!("{text}\n"));
    }

    /// A program of its own.
    pub fn script(&self, name: &str, text: &str) -> String {
        let path = self.path(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path.display().to_string()
    }

    pub fn put(&self, namespace: &str, name: &str, replicas: u32) {
        let text =
            format!("rv=1 gen=1 replicas={replicas} observed=1 ready={replicas} deleting=\n");
        self.write(&format!("state/{namespace}.{name}"), &text);
    }

    /// What the namespace `ran-a` shows of a deployment from now on.
    pub fn set(&self, name: &str, replicas: u32, generation: u32, observed: u32, ready: u32) {
        let text = format!(
            "rv=5{generation}{observed}{ready} gen={generation} replicas={replicas} \
             observed={observed} ready={ready} deleting=\n"
        );
        self.write(&format!("state/ran-a.{name}"), &text);
    }

    pub fn sink(&self) -> Kubectl {
        self.sink_with(|_| {})
    }

    pub fn sink_with(&self, change: impl FnOnce(&mut KubectlSettings)) -> Kubectl {
        let mut settings = settings(&self.program());
        change(&mut settings);
        Kubectl::new("kubectl".to_owned(), &settings, Some(self.path("cache"))).unwrap()
    }

    /// The arguments of each call so far.
    pub fn calls(&self) -> Vec<String> {
        self.text("calls").lines().map(str::to_owned).collect()
    }

    /// `NAMESPACE.NAME REPLICAS` of all deployments.
    pub fn visible(&self) -> Vec<String> {
        let replicas = |name: &str| -> String {
            let text = self.text(&format!("state/{name}"));
            let mut words = text.split_whitespace();
            words.find_map(|word| word.strip_prefix("replicas=")).unwrap().to_owned()
        };
        let names = crate::support::names(&self.path("state"));
        names.iter().map(|name| format!("{name} {}", replicas(name))).collect()
    }

    /// Those of the script's processes that are still there.
    pub fn running(&self) -> Vec<i32> {
        let pids = self.text("pids");
        let is_ours = |pid: &i32| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&line).contains(&self.program())
        };
        pids.lines().filter_map(|pid| pid.parse().ok()).filter(is_ours).collect()
    }
}

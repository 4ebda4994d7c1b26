//! The floor: the system calls of a synced claim, one package, one status file and one archive an
//! intent, one sync a batch and step; no ledger, no checks.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

use rustix::fs::{AtFlags, CWD, RenameFlags, StatxFlags, renameat_with, statx, syncfs};

const BATCH: usize = 256;

/// The same bytes as our package has.
const KPTFILE: &str = "apiVersion: kpt.dev/v1\nkind: Kptfile\nmetadata:\n  name: scale-ran-a-web-0\n  annotations:\n    config.kubernetes.io/local-config: \"true\"\ninfo:\n  description: Scale Deployment web-0 in namespace ran-a to 5 replicas\n";
const DEPLOYMENT: &str = "apiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: web-0\n  namespace: ran-a\n  annotations:\n    client.lifecycle.config.k8s.io/deletion: detach\nspec:\n  replicas: 5\n";
const STATUS_BYTES: usize = 900;

/// Drains an inbox that was filled before, with so many threads; intents a second.
pub fn run(root: &Path, threads: usize) -> f64 {
    for part in ["work", "processed", "status", "packages", "packages/.stage"] {
        fs::create_dir_all(root.join(part)).expect("a directory");
    }
    let entries = fs::read_dir(root.join("inbox")).expect("an inbox");
    let mut names: Vec<String> = entries
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    let count = names.len();
    let start = Instant::now();
    std::thread::scope(|scope| {
        for share in names.chunks(count.div_ceil(threads)) {
            scope.spawn(move || share.chunks(BATCH).for_each(|batch| one_batch(root, batch)));
        }
    });
    count as f64 / start.elapsed().as_secs_f64()
}

fn one_batch(root: &Path, batch: &[String]) {
    let at = |part: &str, name: &str| -> PathBuf { root.join(part).join(name) };
    let move_to = |from: &Path, to: &Path| {
        renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE).expect("a rename");
    };
    let sync =
        |part: &str| File::open(root.join(part)).and_then(|it| it.sync_all()).expect("a sync");
    let sync_all = |part: &str| {
        syncfs(File::open(root.join(part)).expect("a directory")).expect("a sync");
    };
    let mut documents = Vec::new();
    for name in batch {
        let mut file = File::open(at("inbox", name)).expect("a file");
        statx(&file, c"", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS).expect("a stat");
        move_to(&at("inbox", name), &at("work", name));
        let mut text = String::new();
        file.read_to_string(&mut text).expect("text");
        documents.push(text);
    }
    sync("work");
    for (name, text) in batch.iter().zip(&documents) {
        let stage = at("packages/.stage", name);
        fs::create_dir(&stage).expect("a directory");
        fs::write(stage.join("Kptfile"), KPTFILE).expect("a file");
        fs::write(stage.join("deployment.yaml"), DEPLOYMENT).expect("a file");
        fs::write(stage.join("intent.yaml"), format!("{KPTFILE}{text}")).expect("a file");
    }
    sync_all("packages");
    for name in batch {
        move_to(&at("packages/.stage", name), &at("packages", name));
    }
    sync("packages");
    for name in batch {
        let temporary = at("status", &format!(".{name}"));
        let mut file = File::create(&temporary).expect("a file");
        file.write_all(&[b'x'; STATUS_BYTES]).expect("a write");
        fs::rename(&temporary, at("status", name)).expect("a rename");
        move_to(&at("work", name), &at("processed", name));
    }
    sync_all("status");
}

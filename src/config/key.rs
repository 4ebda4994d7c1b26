//! Every key of the configuration, once: the files, the environment, the flags, the documentation
//! and the checks are all made from this table.

use crate::config::value::{Form, REPLICAS};

/// One key.
#[derive(Debug)]
pub struct Key {
    /// With dots between levels, as in `settle.quiet`.
    pub path: &'static str,
    pub form: Form,
    /// As it would stand in the file; empty where there is none.
    pub default: &'static str,
    /// The command line's name for it, without dashes.
    pub flag: Option<&'static str>,
    /// Whether SIGHUP puts a new value in force.
    pub live: bool,
    /// One line, for the table and the schema.
    pub about: &'static str,
}

impl Key {
    /// The name in the environment.
    pub fn variable(&self) -> String {
        format!("INTENTD_{}", self.path.to_uppercase().replace('.', "__"))
    }
}

const fn key(path: &'static str, form: Form, default: &'static str, about: &'static str) -> Key {
    Key { path, form, default, flag: None, live: false, about }
}

const fn flag(
    path: &'static str,
    name: &'static str,
    form: Form,
    default: &'static str,
    about: &'static str,
) -> Key {
    Key { path, form, default, flag: Some(name), live: false, about }
}

const fn live(path: &'static str, form: Form, default: &'static str, about: &'static str) -> Key {
    Key { path, form, default, flag: None, live: true, about }
}

const fn time(min_ms: u64, max_ms: u64) -> Form {
    Form::Time { min_ms, max_ms }
}

const SECOND: u64 = 1_000;
const HOUR: u64 = 3_600 * SECOND;

/// In the order of the documentation.
pub const KEYS: &[Key] = &[
    flag(
        "spool",
        "spool",
        Form::Path,
        "",
        "directory with `inbox/`, `work/`, `processed/`, `failed/`, `status/`; default `/var/spool/intentd` for a service, below `$XDG_STATE_HOME/intentd` for a user",
    ),
    key("inbox", Form::Path, "", "where producers write, if not `<spool>/inbox`"),
    key("work", Form::Path, "", "where claimed files lie, if not `<spool>/work`"),
    key("processed", Form::Path, "", "where done files go, if not `<spool>/processed`"),
    key("failed", Form::Path, "", "where refused files go, if not `<spool>/failed`"),
    key("status", Form::Path, "", "where the records lie, if not `<spool>/status`"),
    flag(
        "state_dir",
        "state-dir",
        Form::Path,
        "",
        "directory of the ledger and the lock; default `$STATE_DIRECTORY` or `/var/lib/intentd` for a service, `$XDG_STATE_HOME/intentd` for a user",
    ),
    flag(
        "packages",
        "packages",
        Form::Path,
        "",
        "directory of the sink `package`; default `<spool>/packages`",
    ),
    flag(
        "sink",
        "sink",
        Form::List,
        "[\"package\"]",
        "names of the sinks that every intent is delivered to",
    ),
    Key {
        live: true,
        ..flag(
            "schema",
            "schema",
            Form::Path,
            "",
            "a JSON Schema of the site, applied as well as the built-in one",
        )
    },
    Key {
        live: true,
        ..flag(
            "log_level",
            "log-level",
            Form::Level,
            "\"info\"",
            "what is logged; `-v` and `-q` are short for `debug` and `error`",
        )
    },
    flag(
        "log_format",
        "log-format",
        Form::Choice(&["auto", "text", "json", "journald"]),
        "\"auto\"",
        "form of the log; `auto` is journald under systemd, else text",
    ),
    key(
        "allow_network_filesystem",
        Form::Flag,
        "false",
        "accept a spool or state directory on a network filesystem, where locks and syncs may mean little",
    ),
    live(
        "drain",
        time(0, HOUR),
        "\"25s\"",
        "how long the first SIGTERM waits for what is accepted",
    ),
    live(
        "intake.size_bytes_max",
        Form::Size { min: 128, max: 8 << 20 },
        "\"1MiB\"",
        "largest document",
    ),
    live(
        "intake.owners",
        Form::List,
        "[]",
        "users (names or numbers) who may drop files; empty means all who can write to the inbox",
    ),
    live(
        "intake.patterns",
        Form::List,
        "[\"intent-*.json\", \"*.intent.json\"]",
        "names of files that are taken, with one `*` each",
    ),
    key(
        "intake.workers",
        Form::Count { min: 1, max: 256 },
        "",
        "threads that read and check documents; default one per processor",
    ),
    key(
        "settle.lease",
        Form::Flag,
        "true",
        "ask the kernel whether a file is still being written; else wait until it is quiet",
    ),
    key(
        "settle.quiet",
        time(10, 60 * SECOND),
        "\"250ms\"",
        "how long a file must not change where the kernel cannot be asked",
    ),
    flag(
        "watch.poll",
        "poll",
        Form::Flag,
        "false",
        "do without file events and list the inbox instead",
    ),
    key(
        "watch.poll_interval",
        time(10, HOUR),
        "\"1s\"",
        "how often the inbox is listed without events",
    ),
    key(
        "watch.rescan",
        time(SECOND, HOUR),
        "\"30s\"",
        "how often the inbox is listed although there are events",
    ),
    live(
        "policy.allowed_namespaces",
        Form::List,
        "[]",
        "namespaces that intents may name, with `*` and `?`; empty means all",
    ),
    live(
        "policy.denied_namespaces",
        Form::List,
        "[\"kube-system\", \"kube-public\", \"kube-node-lease\"]",
        "namespaces that intents may not name",
    ),
    live(
        "policy.allowed_targets",
        Form::List,
        "[]",
        "targets that intents may name; empty means all",
    ),
    live("policy.denied_targets", Form::List, "[]", "targets that intents may not name"),
    live("policy.replicas_min", REPLICAS, "", "fewest replicas that may be asked for"),
    live("policy.replicas_max", REPLICAS, "", "most replicas that may be asked for"),
    live(
        "policy.bounds",
        Form::Bounds,
        "[]",
        "further bounds: tables with `namespace`, `target` (patterns), `min`, `max`",
    ),
    live("compose.deployment_image", Form::Text, "", "container image of `deployment` packages"),
    live(
        "compose.deployment_template",
        Form::Path,
        "",
        "file with a Deployment that `deployment` packages are made from; wins over the image",
    ),
    live(
        "retry.budget",
        time(0, 7 * 24 * HOUR),
        "\"15m\"",
        "time that an intent may spend at one sink before it is parked",
    ),
    live(
        "retry.first",
        time(1, HOUR),
        "\"200ms\"",
        "upper bound of the first delay between tries; it doubles with each",
    ),
    live("retry.max", time(1, HOUR), "\"30s\"", "upper bound of every delay between tries"),
    // Ten: an outage that a lone intent sits out by its own tries, half a minute, stays its own.
    live(
        "breaker.window",
        Form::Count { min: 0, max: 1_000 },
        "10",
        "newest answers of a sink that are looked at; 0 does without a breaker",
    ),
    live(
        "breaker.failures",
        Form::Count { min: 1, max: 100 },
        "50",
        "per cent of them that say `SINK_UNAVAILABLE` before nothing more is sent to the sink",
    ),
    live(
        "breaker.pause",
        time(10, HOUR),
        "\"5s\"",
        "how long nothing is sent before one intent tries the target; twice as long after each that fails",
    ),
    // As `retry.max`: a target that is back is found as soon as without a breaker.
    live("breaker.pause_max", time(10, HOUR), "\"30s\"", "upper bound of that pause"),
];

/// Keys of `[sinks.NAME]` besides `type`, by type.
pub const SINK_KEYS: &[(&str, &[Key])] = &[
    (
        "package",
        &[key("dir", Form::Path, "", "the packages directory; default as for `packages`"), RATE],
    ),
    (
        "stdout",
        &[
            key(
                "format",
                Form::Choice(&["yaml", "json"]),
                "\"yaml\"",
                "YAML documents, or one JSON object a line",
            ),
            RATE,
        ],
    ),
    (
        "exec",
        &[
            key(
                "command",
                Form::List,
                "",
                "program and arguments; `{intent}` and `{out}` stand for paths; without them `-intent FILE -out DIR` is appended",
            ),
            key(
                "dir",
                Form::Path,
                "",
                "what `{out}` stands for; made when missing; default `<spool>/out`",
            ),
            key(
                "timeout",
                time(10, 5 * 60 * SECOND),
                "\"30s\"",
                "after this the command and its children are killed",
            ),
            RATE,
        ],
    ),
    ("git", GIT_KEYS),
    ("kubernetes", KUBERNETES_KEYS),
    ("kubectl", KUBECTL_KEYS),
    ("porch", PORCH_KEYS),
];

/// Of every type of sink.
const RATE: Key = key(
    "rate",
    Form::Count { min: 1, max: 10_000 },
    "",
    "most deliveries a second, each try counted, and at most a second's worth at once; default no bound. How many are under way at a time is the business of `concurrency`, where a type has it; the others have one or two batches at a time",
);

const KUBECONFIG: Key = key(
    "kubeconfig",
    Form::Path,
    "",
    "file with the server and our credentials; default `$KUBECONFIG`, else the pod's service account, else the home directory's",
);

const CONTEXT: Key = key("context", Form::Text, "", "the file's context; default its current one");

const KIND: Key = key("kind", Form::Text, "\"Deployment\"", "kind of what is scaled");

const API_VERSION: Key =
    key("api_version", Form::Text, "\"apps/v1\"", "group and version of what is scaled");

const PLURAL: Key = key(
    "plural",
    Form::Text,
    "",
    "its name in addresses; default the kind in small letters with an `s`",
);

const HPA: Key = key(
    "hpa",
    Form::Choice(&["refuse", "floor", "clamp"]),
    "\"refuse\"",
    "where a HorizontalPodAutoscaler targets it: refuse, raise (or lower) its minimum to what is wanted, or keep what is wanted within its bounds",
);

const DELIVERED: Key = key(
    "delivered",
    Form::Choice(&["accepted", "observed", "converged"]),
    "\"observed\"",
    "what counts as delivered: the write is stored, its controller has seen it, or all replicas are ready",
);

const VERIFY_TIMEOUT: Key = key(
    "verify_timeout",
    time(SECOND, 24 * HOUR),
    "\"5m\"",
    "how long after the write that may take",
);

/// Keys of `[sinks.NAME]` of the type `kubernetes`.
const KUBERNETES_KEYS: &[Key] = &[
    KUBECONFIG,
    CONTEXT,
    key(
        "mode",
        Form::Choice(&["scale", "ssa", "networkintent"]),
        "\"scale\"",
        "patch the scale subresource, apply `spec.replicas` server-side, or create a NetworkIntent",
    ),
    KIND,
    API_VERSION,
    PLURAL,
    key(
        "field_manager",
        Form::Text,
        "\"intentd\"",
        "who we are to the server; never to be changed",
    ),
    key(
        "force",
        Form::Flag,
        "false",
        "ssa: take the field from its owner, but never from an autoscaler",
    ),
    HPA,
    DELIVERED,
    VERIFY_TIMEOUT,
    key("timeout", time(100, 5 * 60 * SECOND), "\"10s\"", "after this one call is given up"),
    key("concurrency", Form::Count { min: 1, max: 40 }, "8", "calls, and connections, at a time"),
    key(
        "watch",
        Form::Choice(&["namespace", "cluster"]),
        "\"namespace\"",
        "follow workloads and autoscalers of each namespace that intents name, or of all by one watch",
    ),
    RATE,
];

/// Keys of `[sinks.NAME]` of the type `kubectl`.
const KUBECTL_KEYS: &[Key] = &[
    key("program", Form::Text, "\"kubectl\"", "the kubectl program, by name or path"),
    KUBECONFIG,
    CONTEXT,
    KIND,
    API_VERSION,
    PLURAL,
    HPA,
    DELIVERED,
    VERIFY_TIMEOUT,
    key(
        "timeout",
        time(100, 5 * 60 * SECOND),
        "\"30s\"",
        "after this one call of kubectl is killed",
    ),
    RATE,
];

/// Keys of `[sinks.NAME]` of the type `porch`.
const PORCH_KEYS: &[Key] = &[
    KUBECONFIG,
    CONTEXT,
    key("namespace", Form::Text, "\"default\"", "namespace of the Repository"),
    key("repository", Form::Text, "", "the Repository's name"),
    key(
        "policy",
        Form::Choice(&["draft", "propose", "approve"]),
        "\"propose\"",
        "how far a revision is taken: left as a draft, proposed for people to approve, or published",
    ),
    key(
        "approval",
        Form::Choice(&["", "initial", "always"]),
        "\"\"",
        "value of Nephio's annotation `approval.nephio.org/policy` on revisions; none if empty",
    ),
    key(
        "mode",
        Form::Choice(&["own", "edit"]),
        "\"own\"",
        "keep a package of ours a target, or change `spec.replicas` in a package that is there",
    ),
    key("edit_package", Form::Text, "", "edit: the package's name"),
    key("kind", Form::Text, "\"Deployment\"", "edit: kind of the manifests"),
    key(
        "timeout",
        time(SECOND, 10 * 60 * SECOND),
        "\"2m\"",
        "after this one call is given up; what it started may still land, and is looked for",
    ),
    RATE,
];

/// Keys of `[sinks.NAME]` of the type `git`.
const GIT_KEYS: &[Key] = &[
    key(
        "remote",
        Form::Text,
        "",
        "ssh, https or file address of the repository, without a password",
    ),
    key("branch", Form::Text, "\"main\"", "the branch that is fetched, committed to and pushed"),
    key(
        "mode",
        Form::Choice(&["own", "edit"]),
        "\"own\"",
        "keep a package of ours a target, or change `spec.replicas` in manifests that are there",
    ),
    key(
        "path",
        Form::Text,
        "\"{package}\"",
        "own: the package's directory; edit: directory or file to look in, `.` for all; may hold `{package}`, `{namespace}`, `{target}`",
    ),
    key("kind", Form::Text, "\"Deployment\"", "edit: kind of the manifests"),
    key("author", Form::Text, "\"intentd <intentd@localhost>\"", "author and committer"),
    key("program", Form::Text, "\"git\"", "the git program, by name or path"),
    key("timeout", time(100, 5 * 60 * SECOND), "\"1m\"", "after this one call of git is killed"),
    key(
        "token_file",
        Form::Path,
        "",
        "https: file with the token or password, read anew each time",
    ),
    key("username", Form::Text, "\"git\"", "https: user name that goes with the token"),
    key("ca_file", Form::Path, "", "https: certificates to trust instead of the system's"),
    key("ssh_program", Form::Text, "\"ssh\"", "ssh: the OpenSSH client, by name or path"),
    key(
        "ssh_key",
        Form::Path,
        "",
        "ssh: private key; default the ones of the user's own directory",
    ),
    key("known_hosts", Form::Path, "", "ssh: keys of hosts; default the user's own"),
    key(
        "signing_key",
        Form::Text,
        "",
        "key that commits are signed with, as git's `user.signingKey`",
    ),
    key(
        "signing_format",
        Form::Choice(&["ssh", "openpgp", "x509"]),
        "\"ssh\"",
        "kind of that key, as git's `gpg.format`",
    ),
    RATE,
];

/// The key of that path.
pub fn find(path: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.path == path)
}

/// The known name that was probably meant. Names are compared as a whole, and then by what stands
/// after their last dot, since a key is as easily put into the wrong table as misspelt.
pub fn nearest<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    let leaf = |path: &'a str| path.rsplit_once('.').map_or(path, |(_, leaf)| leaf);
    let end = name.rsplit_once('.').map_or(name, |(_, end)| end);
    closest(name, known.iter().map(|path| (*path, *path)))
        .or_else(|| closest(end, known.iter().map(|path| (leaf(path), *path))))
}

/// Of pairs of a word and what it stands for, the one whose word is at most two edits away, and
/// fewer than half of its letters.
fn closest<'a>(name: &str, words: impl Iterator<Item = (&'a str, &'a str)>) -> Option<&'a str> {
    words
        .map(|(word, meant)| (distance(name, word), meant))
        .filter(|(distance, _)| *distance <= 2 && distance * 2 < name.len())
        .min()
        .map(|(_, meant)| meant)
}

/// Levenshtein's distance, in bytes: keys are ASCII.
fn distance(one: &str, other: &str) -> usize {
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (i, a) in one.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in other.bytes().enumerate() {
            let replaced = diagonal + usize::from(a != b);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_that_was_meant_is_found_in_any_table_and_a_strange_one_has_none() {
        let known = ["spool", "watch.rescan", "settle.quiet", "retry.max"];
        for (name, meant) in [
            ("spol", Some("spool")),
            ("watch.rescn", Some("watch.rescan")),
            ("rescan", Some("watch.rescan")),
            ("settle.rescan", Some("watch.rescan")),
            ("settle.quite", Some("settle.quiet")),
            ("colour", None),
            ("x", None),
        ] {
            assert_eq!(nearest(name, &known), meant, "{name}");
        }
    }

    #[test]
    fn no_two_keys_share_a_name_a_variable_or_a_flag() {
        let unique = |mut names: Vec<String>| {
            let count = names.len();
            names.sort();
            names.dedup();
            names.len() == count
        };
        assert!(unique(KEYS.iter().map(Key::variable).collect()));
        assert!(unique(KEYS.iter().filter_map(|key| Some(key.flag?.to_owned())).collect()));
        assert!(KEYS.iter().all(|key| key.path.matches('.').count() <= 1), "one level of tables");
    }
}

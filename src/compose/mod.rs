//! Turns an intent into a kpt package: a pure function of the document and the site's settings.
//!
//! Invariant: no time, seq, epoch or host enters a package, so the same document under the same
//! settings gives the same bytes, and a repeated delivery changes nothing.

use crate::model::{Digest, TargetKey};

/// What the site adds to the document.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Image of the one container of a `deployment` package.
    pub deployment_image: Option<String>,
    /// Text of a site's Deployment template; wins over `deployment_image`.
    pub deployment_template: Option<String>,
}

/// A directory of files, ready to be delivered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Package {
    /// A DNS-1123 label, stable per target.
    pub name: String,
    pub key: TargetKey,
    /// Sorted by name; never empty.
    pub files: Vec<File>,
    /// Over names and bytes of all files.
    pub digest: Digest,
}

/// One file of a package.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    pub name: &'static str,
    pub text: String,
}

//! What only a real API server with its controllers shows.

use super::*;

//! The points of a store as pages of line protocol, wherever the store is.
//!
//! Owns the difference between asking a daemon and reading a folder.

use std::path::Path;

use uni_api::rpc::method;
use uni_api::store::ExportParams;
use uni_store::{ExportCursor, ExportPage, ExportSelection, Store};

use crate::client::{ANSWER_WAIT, Client};

/// Bytes of a page that is read from a folder.
const PAGE_BYTES: usize = 2 << 20;

/// Pages, the next one on demand.
pub(super) struct Pages<'c> {
    from: From<'c>,
    selection: ExportSelection,
    cursor: Option<ExportCursor>,
    is_done: bool,
}

enum From<'c> {
    Daemon(&'c mut Client),
    Folder(Box<Store>),
}

impl<'c> Pages<'c> {
    /// The pages of a selection: of the daemon, or of the state directory of one that does not run.
    pub(super) fn open(
        client: &'c mut Client,
        state_dir: Option<&Path>,
        selection: ExportSelection,
    ) -> anyhow::Result<Self> {
        let from = match state_dir {
            None => From::Daemon(client),
            Some(state_dir) => From::Folder(Box::new(super::read_only(state_dir)?)),
        };
        Ok(Self { from, selection, cursor: None, is_done: false })
    }

    /// The next page; `None` after the last.
    pub(super) fn next(&mut self) -> anyhow::Result<Option<ExportPage>> {
        if self.is_done {
            return Ok(None);
        }
        let page: ExportPage = match &mut self.from {
            From::Daemon(client) => {
                let params = ExportParams { selection: &self.selection, cursor: self.cursor.as_ref() };
                client.call_patiently(method::STORE_EXPORT, &params, ANSWER_WAIT)?
            }
            From::Folder(store) => store.export(&self.selection, self.cursor.as_ref(), PAGE_BYTES)?,
        };
        self.cursor.clone_from(&page.next);
        self.is_done = page.next.is_none();
        Ok(Some(page))
    }
}

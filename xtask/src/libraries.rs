//! Which library the code of a guest's image is of: the table that the guest itself looks into.
//!
//! Owns putting it into the image once the linker has given addresses. Its form is `uni-guest`'s.

use anyhow::{Context as _, ensure};
use object::{Object as _, ObjectSection as _};
use uni_guest::heap::symbols::{SECTION, table_of};

/// Fills in the section for it. An image without one samples no heap, and stays as it is.
pub(crate) fn put_table(image: &mut [u8]) -> anyhow::Result<()> {
    let file = object::File::parse(&*image)?;
    let Some((at, room)) = file.section_by_name(SECTION).and_then(|section| section.file_range()) else {
        return Ok(());
    };
    let table = table_of(&*image)?;
    let size = u64::try_from(table.len())?;
    ensure!(size <= room, "the table takes {size} bytes and there is room for {room}; give the section more");
    let (at, end) = (usize::try_from(at)?, usize::try_from(at + size)?);
    image.get_mut(at..end).context("the section lies outside the file")?.copy_from_slice(&table);
    Ok(())
}

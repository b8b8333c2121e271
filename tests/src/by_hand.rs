//! A guest by itself, on QEMU started by hand: what a user without `unid` does.
//!
//! Owns the process; it ends with it.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};

use anyhow::{Context as _, ensure};

use crate::{PATIENCE, eventually, guest};

/// A machine type and what a network card is called there.
#[derive(Clone, Copy, Debug)]
pub struct OnMachine {
    /// QEMU's name of the machine, with options.
    pub machine: &'static str,
    card: &'static str,
    card_options: &'static str,
}

/// Every guest runs on both.
pub const MACHINES: [OnMachine; 2] = [
    OnMachine { machine: "microvm", card: "virtio-net-device", card_options: "" },
    OnMachine {
        machine: "q35,usb=off,sata=off,smbus=off",
        card: "virtio-net-pci",
        card_options: ",romfile=",
    },
];

/// QEMU with one guest, both links on user-mode networks; killed when dropped.
#[derive(Debug)]
pub struct Qemu {
    child: Child,
    console: std::path::PathBuf,
    qmp: std::path::PathBuf,
    frames: std::path::PathBuf,
}

impl Qemu {
    /// Starts a guest with `args`; `management` are the options of QEMU's network on that link.
    ///
    /// # Errors
    /// When QEMU cannot be started.
    pub fn boot(
        dir: &Path,
        on: OnMachine,
        image: &str,
        management: &str,
        args: &str,
    ) -> anyhow::Result<Self> {
        let dir = tempfile::tempdir_in(dir)?.keep();
        let (console, qmp, frames) = (dir.join("console"), dir.join("qmp"), dir.join("frames"));
        let card = |link, mac| format!("{},netdev={link},mac={mac}{}", on.card, on.card_options);
        let child = Command::new("qemu-system-x86_64")
            .args(["-M", on.machine, "-accel", "tcg", "-cpu", "max", "-m", "32M"])
            .args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"])
            .args(["-device", "isa-debug-exit,iobase=0xf4,iosize=4"])
            .args(["-serial", &format!("file:{}", console.display())])
            .args(["-qmp", &format!("unix:{},server=on,wait=off", qmp.display())])
            .args(["-netdev", "user,id=service", "-device", &card("service", "02:75:6e:00:00:01")])
            .args(["-netdev", &format!("user,id=management,{management}")])
            .args(["-device", &card("management", "02:75:6e:01:00:01")])
            .args(["-object", &format!("filter-dump,id=dump,netdev=management,file={}", frames.display())])
            .arg("-kernel")
            .arg(guest(image))
            .args(["-append", args])
            .stdin(Stdio::null())
            .spawn()
            .context("start qemu-system-x86_64")?;
        Ok(Self { child, console, qmp, frames })
    }

    /// What the guest has written to its console so far.
    #[must_use]
    pub fn console(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.console).unwrap_or_default()).into_owned()
    }

    /// The payloads of the TCP segments that the guest has sent to `port` over the management link so far, each once, in
    /// the order of the stream.
    #[must_use]
    pub fn segments_to(&self, port: u16) -> Vec<Vec<u8>> {
        let dump = std::fs::read(&self.frames).unwrap_or_default();
        let mut segments = std::collections::BTreeMap::new();
        // pcap: a header of 24 bytes, then for each frame 16 bytes, the length at 8
        let mut rest = dump.get(24..).unwrap_or_default();
        while let Some((head, after)) = rest.split_at_checked(16) {
            let length = u32::from_le_bytes([head[8], head[9], head[10], head[11]]) as usize;
            let Some((frame, after)) = after.split_at_checked(length) else { break };
            if let Some((number, payload)) = segment_to(frame, port) {
                segments.insert(number, payload.to_vec());
            }
            rest = after;
        }
        segments.into_values().collect()
    }

    /// Waits for `text` on the console.
    ///
    /// # Errors
    /// When it does not come, with what did.
    pub fn wait_for(&self, text: &str) -> anyhow::Result<()> {
        eventually(text, || {
            ensure!(self.console().contains(text), "console: {}", self.console());
            Ok(())
        })
    }

    /// QEMU's exit status, if it has ended.
    ///
    /// # Errors
    /// When it cannot be asked.
    pub fn try_wait(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// QEMU's exit status once it has ended by itself.
    ///
    /// # Errors
    /// When it goes on, or was killed.
    pub fn status(&mut self) -> anyhow::Result<i32> {
        let child = &mut self.child;
        let status = eventually("QEMU to end", || child.try_wait()?.context("still running"))?;
        status.code().context("ended by a signal")
    }

    /// Presses the power button.
    ///
    /// # Errors
    /// When QEMU is not up yet, or no more.
    pub fn press_power_button(&self) -> anyhow::Result<()> {
        let mut stream = UnixStream::connect(&self.qmp)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut lines = BufReader::new(stream.try_clone()?);
        let mut line = String::new();
        for command in ["qmp_capabilities", "system_powerdown"] {
            lines.read_line(&mut line)?;
            writeln!(stream, "{{\"execute\":\"{command}\"}}")?;
        }
        lines.read_line(&mut line)?;
        Ok(())
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The sequence number and payload of an Ethernet frame, if it is a TCP segment to `port` with a payload.
fn segment_to(frame: &[u8], port: u16) -> Option<(u32, &[u8])> {
    let packet = frame.get(14..).filter(|packet| packet.len() >= 20 && frame[12..14] == [8, 0])?;
    let whole = packet.get(..usize::from(u16::from_be_bytes([packet[2], packet[3]])))?;
    let segment = whole.get(usize::from(packet[0] & 15) * 4..).filter(|_| packet[9] == 6)?;
    let to = u16::from_be_bytes([*segment.get(2)?, *segment.get(3)?]);
    let number = u32::from_be_bytes(segment.get(4..8)?.try_into().ok()?);
    let payload = segment.get(usize::from(segment.get(12)? >> 4) * 4..)?;
    (to == port && !payload.is_empty()).then_some((number, payload))
}

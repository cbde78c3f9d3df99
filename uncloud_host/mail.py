"""Events as mail: what it says (pure) and its way out, by SMTP or the local sendmail."""

import email.policy
import email.utils
import smtplib
import subprocess
from collections.abc import Sequence
from email.message import EmailMessage

from uncloud_host.config import Mail
from uncloud_host.events import Event, Name, stamp

SENDMAIL = "/usr/sbin/sendmail"
UNFOLDED = 300  # characters: a subject is one line, also for those who read mails as files
_FINAL = 500  # SMTP's codes from here on are refusals for good
ANSWER = 10.0  # seconds for each answer of the SMTP server


class MailError(Exception):
    """The mail could not be handed over; the message is one line."""


class Rejected(MailError):
    """The mail server will not take this mail, however often it is asked (SMTP 5xx)."""


def message(events: Sequence[Event], sender: str, to: Sequence[str]) -> EmailMessage:
    """Write the mail about an event, or about several of one kind.

    The Message-ID is the first event's, so that a second delivery can be told.
    """
    first, count = events[0], len(events)
    sentence = first.sentence if count == 1 else f"{count} VMs are {first.event}: {first.reason}"
    mail = EmailMessage(policy=email.policy.SMTP.clone(max_line_length=UNFOLDED))
    mail["From"], mail["To"] = sender, ", ".join(to)
    mail["Subject"] = " ".join(f"[{first.host}] {sentence}".split())[:200]
    mail["Date"] = email.utils.format_datetime(first.time)
    mail["Message-ID"] = f"<{first.id}@{sender.rpartition('@')[2]}>"
    mail["Auto-Submitted"] = "auto-generated"
    text = "\n".join(_lines(event) for event in events)
    mail.set_content(f"{sentence}.\n\n{text}\nTo look further, on {first.host}:\n  {_command(first)}\n")
    return mail


def _lines(event: Event) -> str:
    lines = {
        "VM": f"{event.name} ({event.vm})" if event.name != event.vm else event.vm,
        "Host": event.host,
        "Event": event.event,
        "Time": stamp(event.time),
        "Reason": event.reason,
        **{key.capitalize(): value for key, value in event.trail.items()},
    }
    return "".join(f"{key + ':':<9}{value}\n" for key, value in lines.items() if value)


def _command(event: Event) -> str:
    if event.event == Name.HELD:
        return "uncloud-host confirm         (or put the entries back)"
    return f"journalctl -u {f'vm-{event.vm}' if event.vm else 'uncloud-host'}"


def send(mail: EmailMessage, config: Mail) -> None:
    """Hand a mail over. Raises MailError if nobody has taken it."""
    try:
        if config.smtp is None:
            _sendmail(mail.as_bytes(policy=email.policy.default.clone(max_line_length=UNFOLDED)), config)
            return
        host, _, port = config.smtp.rpartition(":")
        with smtplib.SMTP(host.strip("[]"), int(port), timeout=ANSWER) as server:
            server.send_message(mail, config.sender, list(config.to))
    except (OSError, smtplib.SMTPException) as error:
        if _is_final(error):
            raise Rejected(f"mail: {config.smtp}: {' '.join(str(error).split())[:300]}") from None
        where = config.smtp or SENDMAIL
        raise MailError(f"mail: {where}: {' '.join(str(error).split())}") from None


def _is_final(error: Exception) -> bool:
    match error:
        case smtplib.SMTPRecipientsRefused():
            return all(code >= _FINAL for code, _ in error.recipients.values())
        case smtplib.SMTPResponseException():
            return not isinstance(error, smtplib.SMTPConnectError | smtplib.SMTPHeloError) and error.smtp_code >= _FINAL
    return False


def _sendmail(text: bytes, config: Mail) -> None:
    """Run sendmail in a unit of its own: it is setuid or setgid and writes to its spool, which our sandbox forbids.

    It may deliver in the background after it has said yes (exim, dma): only the process itself ends with the unit.
    """
    unit = ["systemd-run", "--quiet", "--collect", "--pipe", "--wait", "--property=KillMode=process"]
    words = [*unit, SENDMAIL, "-oi", "-f", config.sender, "--", *config.to]
    try:
        done = subprocess.run(words, input=text, timeout=60, capture_output=True, check=False)  # noqa: S603 - our words
    except (OSError, subprocess.TimeoutExpired) as error:
        raise MailError(f"mail: {SENDMAIL}: {error}") from None
    if done.returncode:
        said = " ".join(done.stderr.decode(errors="replace").split()) or f"exit status {done.returncode}"
        raise MailError(f"mail: {SENDMAIL}: {said[:300]}")

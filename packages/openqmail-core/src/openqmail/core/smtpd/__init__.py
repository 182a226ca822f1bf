"""Receives mail by SMTP: policy, the message on its way in, the session, the service."""

from openqmail.core.smtpd.admission import client_resolver
from openqmail.core.smtpd.service import SmtpService

__all__ = ["SmtpService", "client_resolver"]

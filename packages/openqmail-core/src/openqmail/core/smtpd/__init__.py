"""Receives mail by SMTP: policy, the message on its way in, the session, the service."""

from openqmail.core.smtpd.admission import client_resolver
from openqmail.core.smtpd.service import SmtpService, SmtpsService, SubmissionService, SubmissionsService

__all__ = ["SmtpService", "SmtpsService", "SubmissionService", "SubmissionsService", "client_resolver"]

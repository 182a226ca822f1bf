"""The home and its control files: found, read, checked, explained."""

from openqmail.core.control.accounts import Account, Accounts, find_accounts
from openqmail.core.control.assign import Assignment, User, Users, compile_cdb, parse_assign
from openqmail.core.control.cdb import Cdb, CdbDamaged, make_cdb
from openqmail.core.control.definition import Definition
from openqmail.core.control.definitions import DEFINITIONS
from openqmail.core.control.home import Home
from openqmail.core.control.reader import Findings, all_definitions, check, defaults, read_settings
from openqmail.core.control.rules import Rule, Rules
from openqmail.core.control.settings import Listener, Resolver, Route, Settings

__all__ = [
    "DEFINITIONS",
    "Account",
    "Accounts",
    "Assignment",
    "Cdb",
    "CdbDamaged",
    "Definition",
    "Findings",
    "Home",
    "Listener",
    "Resolver",
    "Route",
    "Rule",
    "Rules",
    "Settings",
    "User",
    "Users",
    "all_definitions",
    "check",
    "compile_cdb",
    "defaults",
    "find_accounts",
    "make_cdb",
    "parse_assign",
    "read_settings",
]

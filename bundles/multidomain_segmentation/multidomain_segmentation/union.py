"""All domains' labels as one list, for programs that want one list of names (MONAI Label).

Structures of one name in several domains are one label of the union; the background comes first.
"""

from __future__ import annotations

from tools.data.domain_plan import DomainPlan

__all__ = ["label_values", "union_channels", "union_names"]


def union_names(plan: DomainPlan) -> tuple[str, ...]:
    """Names of the union's labels, in the order of the domains and of their channels; the place of a name is its label value."""
    structures = [name for domain in plan.domains.values() for name in list(domain.labels.values())[1:]]
    return ("background", *dict.fromkeys(structures))


def union_channels(plan: DomainPlan, domain: str) -> tuple[int, ...]:
    """Of each of a domain's channels, the union's. Raises DataError when the domain is unknown."""
    plan.index(domain)
    names = union_names(plan)
    return (0, *(names.index(name, 1) for name in list(plan.domains[domain].labels.values())[1:]))


def label_values(plan: DomainPlan) -> dict[int, str]:
    """Label value to name of the union's labels, in the order of its channels."""
    return dict(enumerate(union_names(plan)))

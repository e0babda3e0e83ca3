"""The backend's schema as a live deployment has it, and what the pipeline needs of it. Data; nothing here is run.

Defaults, constraints and generated expressions are the backend's own business and are left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

SEQUENCE_INCREMENT = 11

# What the sync does not work without. Everything else that is missing or different concerns single features.
VITAL_TABLES = frozenset({"Tenancy", "DeletedRow", "OutgoingRequest", "ExternalDbSyncMetadata"})
STAMPS = frozenset({"sequenceId", "shouldUpdateSequenceId"})


@dataclass(frozen=True)
class Column:
    """A column: its type as the server spells it, and whether it may be null."""

    type: str
    nullable: bool


@dataclass(frozen=True)
class Table:
    """A table: its columns in order, and its primary key."""

    columns: dict[str, Column]
    key: tuple[str, ...]

    @property
    def sequenced(self) -> bool:
        return self.columns.keys() >= STAMPS


@dataclass(frozen=True)
class NeededIndex:
    """An index that the pipeline reads by. Its name is free, and it may hold more columns behind these.

    `definition` makes it; `alternative` are columns of a whole one that serves as well as a partial one. `predicate`:
    a part of a partial one's condition. `vital`: statements fail without it, and are not only slow.
    """

    table: str
    columns: tuple[str, ...]
    definition: str
    predicate: str | None = None
    alternative: tuple[str, ...] = ()
    unique: bool = False
    vital: bool = False


# Callers of the backend's contract use them; stackctl's own stages do not.
FUNCTIONS = ("enqueue_tenant_sync", "backfill_null_sequence_ids")

_ENUMS = """
BooleanTrue: TRUE
ContactChannelType: EMAIL
CustomerType: USER, TEAM, CUSTOM
EmailOutboxCreatedWith: DRAFT, PROGRAMMATIC_CALL
EmailOutboxSimpleStatus: IN_PROGRESS, ERROR, OK
EmailOutboxSkippedReason: USER_UNSUBSCRIBED, USER_ACCOUNT_DELETED, USER_HAS_NO_PRIMARY_EMAIL, NO_EMAIL_PROVIDED, \
LIKELY_NOT_DELIVERABLE, MANUALLY_CANCELLED
EmailOutboxStatus: PAUSED, PREPARING, RENDERING, RENDER_ERROR, SCHEDULED, QUEUED, SENDING, SERVER_ERROR, SENT, \
SKIPPED, DELIVERY_DELAYED, BOUNCED, OPENED, CLICKED, MARKED_AS_SPAM
PurchaseCreationSource: PURCHASE_PAGE, TEST_MODE, API_GRANT
SubscriptionStatus: active, trialing, canceled, paused, incomplete, incomplete_expired, past_due, unpaid
VerificationCodeType: ONE_TIME_PASSWORD, CONTACT_CHANNEL_VERIFICATION, PASSWORD_RESET, TEAM_INVITATION, \
MFA_ATTEMPT, PASSKEY_REGISTRATION_CHALLENGE, PASSKEY_AUTHENTICATION_CHALLENGE, INTEGRATION_PROJECT_TRANSFER, \
PURCHASE_URL
"""

# Table (primary key), then its columns.
_TABLES = """
Project (id)
  id: text not null
  createdAt: timestamp(3) not null
  updatedAt: timestamp(3) not null
  displayName: text not null
  description: text not null
  isProductionMode: boolean not null
  projectConfigOverride: jsonb
  logoUrl: text
  logoFullUrl: text
  ownerTeamId: uuid
  stripeAccountId: text
  logoDarkModeUrl: text
  logoFullDarkModeUrl: text
  onboardingStatus: text not null
Tenancy (id)
  id: uuid not null
  createdAt: timestamp(3) not null
  updatedAt: timestamp(3) not null
  projectId: text not null
  branchId: text not null
  organizationId: uuid
  hasNoOrganization: BooleanTrue
  emailCapacityBoostExpiresAt: timestamp(3)
BranchConfigOverride (projectId, branchId)
  projectId: text not null
  branchId: text not null
  createdAt: timestamp(3) not null
  updatedAt: timestamp(3) not null
  config: jsonb not null
  source: jsonb
EnvironmentConfigOverride (projectId, branchId)
  projectId: text not null
  branchId: text not null
  createdAt: timestamp(3) not null
  updatedAt: timestamp(3) not null
  config: jsonb not null
ProjectUser (tenancyId, projectUserId)
  projectUserId: uuid not null
  createdAt: timestamp(3) not null
  updatedAt: timestamp(3) not null
  profileImageUrl: text
  displayName: text
  serverMetadata: jsonb
  clientMetadata: jsonb
  requiresTotpMfa: boolean not null
  totpSecret: bytea
  clientReadOnlyMetadata: jsonb
  tenancyId: uuid not null
  mirroredBranchId: text not null
  mirroredProjectId: text not null
  isAnonymous: boolean not null
  projectId: text
  sequenceId: bigint
  shouldUpdateSequenceId: boolean not null
  lastActiveAt: timestamp(3) not null
  restrictedByAdmin: boolean not null
  restrictedByAdminReason: text
  restrictedByAdminPrivateDetails: text
  signUpRiskScoreBot: smallint not null
  signUpRiskScoreFreeTrialAbuse: smallint not null
  signUpCountryCode: text
  signedUpAt: timestamp(3) not null
  signUpIp: text
  signUpIpTrusted: boolean
  signUpEmailNormalized: text
  signUpEmailBase: text
ContactChannel (tenancyId, projectUserId, id)
  id: uuid not null
  projectUserId: uuid not null
  createdAt: timestamp(3) not null
  updatedAt: timestamp(3) not null
  type: ContactChannelType not null
  isPrimary: BooleanTrue
  isVerified: boolean not null
  value: text not null
  usedForAuth: BooleanTrue
  tenancyId: uuid not null
  sequenceId: bigint
  shouldUpdateSequenceId: boolean not null
Team (tenancyId, teamId)
  teamId: uuid not null
  createdAt: timestamp(3) not null
  updatedAt: timestamp(3) not null
  displayName: text not null
  profileImageUrl: text
  clientMetadata: jsonb
  clientReadOnlyMetadata: jsonb
  serverMetadata: jsonb
  tenancyId: uuid not null
  mirroredBranchId: text not null
  mirroredProjectId: text not null
  sequenceId: bigint
  shouldUpdateSequenceId: boolean not null
TeamMember (tenancyId, projectUserId, teamId)
  projectUserId: uuid not null
  teamId: uuid not null
  createdAt: timestamp(3) not null
  updatedAt: timestamp(3) not null
  isSelected: BooleanTrue
  displayName: text
  profileImageUrl: text
  tenancyId: uuid not null
  sequenceId: bigint
  shouldUpdateSequenceId: boolean not null
TeamMemberDirectPermission (id)
  projectUserId: uuid not null
  teamId: uuid not null
  createdAt: timestamp(3) not null
  updatedAt: timestamp(3) not null
  id: uuid not null
  tenancyId: uuid not null
  permissionId: text not null
  sequenceId: bigint
  shouldUpdateSequenceId: boolean not null
ProjectUserDirectPermission (id)
  id: uuid not null
  tenancyId: uuid not null
  projectUserId: uuid not null
  createdAt: timestamp(3) not null
  updatedAt: timestamp(3) not null
  permissionId: text not null
  sequenceId: bigint
  shouldUpdateSequenceId: boolean not null
UserNotificationPreference (tenancyId, id)
  id: uuid not null
  tenancyId: uuid not null
  projectUserId: uuid not null
  notificationCategoryId: uuid not null
  enabled: boolean not null
  sequenceId: bigint
  shouldUpdateSequenceId: boolean not null
VerificationCode (projectId, branchId, id)
  projectId: text not null
  id: uuid not null
  createdAt: timestamp(3) not null
  updatedAt: timestamp(3) not null
  type: VerificationCodeType not null
  code: text not null
  expiresAt: timestamp(3) not null
  usedAt: timestamp(3)
  redirectUrl: text
  data: jsonb not null
  method: jsonb not null
  attemptCount: integer not null
  branchId: text not null
  sequenceId: bigint
  shouldUpdateSequenceId: boolean not null
EmailOutbox (tenancyId, id)
  tenancyId: uuid not null
  id: uuid not null
  createdAt: timestamp(3) not null
  updatedAt: timestamp(3) not null
  tsxSource: text not null
  themeId: text
  isHighPriority: boolean not null
  to: jsonb not null
  overrideSubject: text
  overrideNotificationCategoryId: text
  renderedIsTransactional: boolean
  renderedNotificationCategoryId: text
  extraRenderVariables: jsonb not null
  createdWith: EmailOutboxCreatedWith not null
  emailDraftId: text
  emailProgrammaticCallTemplateId: text
  shouldSkipDeliverabilityCheck: boolean not null
  priority: integer not null
  isPaused: boolean not null
  renderedByWorkerId: uuid
  startedRenderingAt: timestamp(3)
  finishedRenderingAt: timestamp(3)
  renderErrorExternalMessage: text
  renderErrorExternalDetails: jsonb
  renderErrorInternalMessage: text
  renderErrorInternalDetails: jsonb
  renderedHtml: text
  renderedText: text
  renderedSubject: text
  scheduledAt: timestamp(3) not null
  isQueued: boolean not null
  scheduledAtIfNotYetQueued: timestamp(3)
  startedSendingAt: timestamp(3)
  finishedSendingAt: timestamp(3)
  sentAt: timestamp(3)
  sendServerErrorExternalMessage: text
  sendServerErrorExternalDetails: jsonb
  sendServerErrorInternalMessage: text
  sendServerErrorInternalDetails: jsonb
  skippedReason: EmailOutboxSkippedReason
  canHaveDeliveryInfo: boolean
  deliveredAt: timestamp(3)
  deliveryDelayedAt: timestamp(3)
  bouncedAt: timestamp(3)
  openedAt: timestamp(3)
  clickedAt: timestamp(3)
  unsubscribedAt: timestamp(3)
  markedAsSpamAt: timestamp(3)
  skippedDetails: jsonb
  status: EmailOutboxStatus not null
  simpleStatus: EmailOutboxSimpleStatus not null
  sendRetries: integer not null
  nextSendRetryAt: timestamp(3)
  sendAttemptErrors: jsonb
  sequenceId: bigint
  shouldUpdateSequenceId: boolean not null
ProjectUserRefreshToken (tenancyId, id)
  projectUserId: uuid not null
  createdAt: timestamp(3) not null
  updatedAt: timestamp(3) not null
  refreshToken: text not null
  expiresAt: timestamp(3)
  tenancyId: uuid not null
  id: uuid not null
  isImpersonation: boolean not null
  lastActiveAt: timestamp(3) not null
  lastActiveAtIpInfo: jsonb
  sequenceId: bigint
  shouldUpdateSequenceId: boolean not null
ProjectUserOAuthAccount (tenancyId, id)
  projectUserId: uuid
  createdAt: timestamp(3) not null
  updatedAt: timestamp(3) not null
  email: text
  providerAccountId: text not null
  tenancyId: uuid not null
  configOAuthProviderId: text not null
  allowConnectedAccounts: boolean not null
  allowSignIn: boolean not null
  id: uuid not null
  sequenceId: bigint
  shouldUpdateSequenceId: boolean not null
DeletedRow (id)
  id: uuid not null
  tenancyId: uuid not null
  tableName: text not null
  sequenceId: bigint
  primaryKey: jsonb not null
  data: jsonb
  deletedAt: timestamp(3) not null
  startedFulfillingAt: timestamp(3)
  shouldUpdateSequenceId: boolean not null
OutgoingRequest (id)
  id: uuid not null
  createdAt: timestamp(3) not null
  deduplicationKey: text
  qstashOptions: jsonb not null
  startedFulfillingAt: timestamp(3)
ExternalDbSyncMetadata (id)
  id: text not null
  singleton: BooleanTrue not null
  sequencerEnabled: boolean not null
  pollerEnabled: boolean not null
  createdAt: timestamp(3) not null
  updatedAt: timestamp(3) not null
Subscription (tenancyId, id)
  id: uuid not null
  tenancyId: uuid not null
  customerId: text not null
  customerType: CustomerType not null
  product: jsonb not null
  stripeSubscriptionId: text
  status: SubscriptionStatus not null
  currentPeriodEnd: timestamp(3) not null
  currentPeriodStart: timestamp(3) not null
  cancelAtPeriodEnd: boolean not null
  createdAt: timestamp(3) not null
  updatedAt: timestamp(3) not null
  creationSource: PurchaseCreationSource not null
  quantity: integer not null
  productId: text
  priceId: text
  refundedAt: timestamp(3)
  endedAt: timestamp(3)
  canceledAt: timestamp(3)
OneTimePurchase (tenancyId, id)
  id: uuid not null
  tenancyId: uuid not null
  customerId: text not null
  customerType: CustomerType not null
  productId: text
  product: jsonb not null
  quantity: integer not null
  stripePaymentIntentId: text
  createdAt: timestamp(3) not null
  creationSource: PurchaseCreationSource not null
  priceId: text
  refundedAt: timestamp(3)
  revokedAt: timestamp(3)
SubscriptionInvoice (tenancyId, id)
  id: uuid not null
  tenancyId: uuid not null
  stripeSubscriptionId: text not null
  stripeInvoiceId: text not null
  isSubscriptionCreationInvoice: boolean not null
  createdAt: timestamp(3) not null
  updatedAt: timestamp(3) not null
  status: text
  amountTotal: integer
  hostedInvoiceUrl: text
Event (id)
  id: uuid not null
  createdAt: timestamp(3) not null
  updatedAt: timestamp(3) not null
  isWide: boolean not null
  eventStartedAt: timestamp(3) not null
  eventEndedAt: timestamp(3) not null
  systemEventTypeIds: text[]
  data: jsonb not null
  endUserIpInfoGuessId: uuid
  isEndUserIpInfoGuessTrusted: boolean not null
"""


@cache
def enums() -> dict[str, tuple[str, ...]]:
    """The labels of each enum type, in order."""
    lines = (line.split(": ") for line in _ENUMS.strip().splitlines())
    return {name: tuple(labels.split(", ")) for name, labels in lines}


@cache
def tables() -> dict[str, Table]:
    """The tables by name."""
    found: dict[str, Table] = {}
    columns: dict[str, Column] = {}
    for line in _TABLES.strip().splitlines():
        if not line.startswith(" "):
            name, key = line.rstrip(")").split(" (")
            columns = {}
            found[name] = Table(columns, tuple(key.split(", ")))
            continue
        name, text = line.strip().split(": ")
        type_ = text.removesuffix(" not null")
        columns[name] = Column(_spell_type(type_), nullable=type_ == text)
    return found


def _spell_type(type_: str) -> str:
    if type_ in enums():
        return f'"{type_}"'
    return "timestamp(3) without time zone" if type_ == "timestamp(3)" else type_


@cache
def needed_indexes() -> tuple[NeededIndex, ...]:
    """What the stamping, the reading in order and the queue rest on."""
    found: list[NeededIndex] = []
    for name, table in tables().items():
        if not table.sequenced:
            continue
        if name == "VerificationCode":
            invited = """WHERE "type" = 'TEAM_INVITATION'"""
            found += [
                NeededIndex(name, ("projectId", "branchId", "sequenceId"),
                            f'("projectId", "branchId", "sequenceId") {invited}', predicate="TEAM_INVITATION"),
                NeededIndex(name, ("type",), '("type") WHERE "shouldUpdateSequenceId"', "shouldUpdateSequenceId",
                            alternative=("shouldUpdateSequenceId", "type")),
            ]  # fmt: skip
            continue
        order = ("tenancyId", "tableName", "sequenceId") if name == "DeletedRow" else ("tenancyId", "sequenceId")
        found += [
            NeededIndex(name, order, "(" + ", ".join(f'"{column}"' for column in order) + ")"),
            NeededIndex(name, ("tenancyId",), '("tenancyId") WHERE "shouldUpdateSequenceId"', \
"shouldUpdateSequenceId",
                        alternative=("shouldUpdateSequenceId", "tenancyId")),
        ]  # fmt: skip
    pending = '("deduplicationKey") WHERE "startedFulfillingAt" IS NULL'
    return (
        *found,
        NeededIndex("OutgoingRequest", ("startedFulfillingAt", "createdAt"), '("startedFulfillingAt", "createdAt")'),
        NeededIndex("OutgoingRequest", ("deduplicationKey",), pending, unique=True, vital=True),
    )

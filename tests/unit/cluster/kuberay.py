"""A strict model of KubeRay's `ray.io/v1`, as far as cluster/ uses it: an unknown or misspelt field is an error.

It follows the CustomResourceDefinitions of the operator and the API of Kubernetes 1.32.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Quantity = Annotated[str, Field(pattern=r"^\d+(m|[KMGT]i)?$")]
Count = Annotated[int, Field(ge=0)]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Metadata(Strict):
    name: str | None = None
    labels: dict[str, str] = {}


class Selector(Strict):
    matchLabels: dict[str, str]


class Capabilities(Strict):
    drop: list[str]


class ContainerSecurity(Strict):
    allowPrivilegeEscalation: Literal[False]
    capabilities: Capabilities


class Resources(Strict):
    requests: dict[str, Quantity | int]
    limits: dict[str, Quantity | int]


class Mount(Strict):
    name: str
    mountPath: str
    readOnly: bool = False


class SecretKey(Strict):
    name: str
    key: str


class ValueSource(Strict):
    secretKeyRef: SecretKey


class Variable(Strict):
    name: str
    valueFrom: ValueSource


class Container(Strict):
    name: str
    image: str
    command: list[str] | None = None
    env: list[Variable] = []
    securityContext: ContainerSecurity
    resources: Resources
    volumeMounts: list[Mount]


class Claim(Strict):
    claimName: str


class EmptyDir(Strict):
    medium: Literal["Memory"] | None = None
    sizeLimit: Quantity


class Volume(Strict):
    name: str
    persistentVolumeClaim: Claim | None = None
    emptyDir: EmptyDir | None = None


class PodSecurity(Strict):
    runAsNonRoot: Literal[True]
    runAsUser: Annotated[int, Field(gt=0)]
    fsGroup: int


class Toleration(Strict):
    key: str
    operator: Literal["Exists", "Equal"]
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"]


class PodSpec(Strict):
    serviceAccountName: str
    securityContext: PodSecurity
    containers: list[Container]
    volumes: list[Volume]
    tolerations: list[Toleration] = []


class Template(Strict):
    metadata: Metadata
    spec: PodSpec


class HeadGroup(Strict):
    serviceType: Literal["ClusterIP"]
    rayStartParams: dict[str, str]
    template: Template


class WorkerGroup(Strict):
    groupName: str
    replicas: Count
    minReplicas: Count
    maxReplicas: Count
    rayStartParams: dict[str, str]
    template: Template


class AuthOptions(Strict):
    mode: Literal["token"]


class ClusterSpec(Strict):
    rayVersion: str
    authOptions: AuthOptions
    headGroupSpec: HeadGroup
    workerGroupSpecs: list[WorkerGroup]


class JobSpec(Strict):
    entrypoint: str
    backoffLimit: Count
    submissionMode: Literal["K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode"]
    activeDeadlineSeconds: Count
    shutdownAfterJobFinishes: bool
    ttlSecondsAfterFinished: Count
    rayClusterSpec: ClusterSpec


class ServiceSpec(Strict):
    serveConfigV2: str
    rayClusterConfig: ClusterSpec


class RayService(Strict):
    apiVersion: Literal["ray.io/v1"]
    kind: Literal["RayService"]
    metadata: Metadata
    spec: ServiceSpec


class RayCluster(Strict):
    apiVersion: Literal["ray.io/v1"]
    kind: Literal["RayCluster"]
    metadata: Metadata
    spec: ClusterSpec


class RayJob(Strict):
    apiVersion: Literal["ray.io/v1"]
    kind: Literal["RayJob"]
    metadata: Metadata
    spec: JobSpec


class Peer(Strict):
    podSelector: Selector | None = None
    namespaceSelector: Selector | None = None


class Ingress(Strict):
    from_: Annotated[list[Peer], Field(alias="from")]


class PolicySpec(Strict):
    podSelector: Selector
    policyTypes: list[Literal["Ingress"]]
    ingress: list[Ingress]


class NetworkPolicy(Strict):
    apiVersion: Literal["networking.k8s.io/v1"]
    kind: Literal["NetworkPolicy"]
    metadata: Metadata
    spec: PolicySpec


class ClaimSpec(Strict):
    accessModes: list[Literal["ReadWriteMany"]]
    storageClassName: str
    resources: dict[Literal["requests"], dict[Literal["storage"], Quantity]]


class PersistentVolumeClaim(Strict):
    apiVersion: Literal["v1"]
    kind: Literal["PersistentVolumeClaim"]
    metadata: Metadata
    spec: ClaimSpec


KINDS = {kind.__name__: kind for kind in (RayCluster, RayJob, RayService, NetworkPolicy, PersistentVolumeClaim)}


def check(document: dict[str, Any]) -> Any:
    """Validate a document by its kind. Raises pydantic's ValidationError."""
    return KINDS[document["kind"]].model_validate(document)

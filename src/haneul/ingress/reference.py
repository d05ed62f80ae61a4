"""The reference of ingress, written from the code so that the two cannot drift apart. Pure.

``docs/reference/ingress.md`` is exactly what :func:`ingress_page` returns; tests hold it to that.
"""

from __future__ import annotations

from typing import Final

from haneul.ingress.annotations import CLOSING, OTHER_PREFIX, PREFIX, reference_rows
from haneul.ingress.certificates import LARGEST, LONGEST_KEY
from haneul.ingress.claims import CONTROLLER
from haneul.ingress.expressions import LONGEST, MOST_UNBOUNDED
from haneul.ingress.model import MEANINGS
from haneul.ingress.new_orders import MOST_NEW, WINDOW
from haneul.ingress.public_names import SPECIAL
from haneul.ingress.routes import MOST_CERTIFIED, MOST_LIMITS

_HEAD: Final = f"""# Ingress

Generated from the code. [How to serve a cluster](../howto/serve-ingress.md), [why it is
so](../decisions/0030-ingress-on-stock-nginx.md).

## What is served

Ingress objects of `networking.k8s.io/v1` whose class is ours: an IngressClass with `spec.controller: {CONTROLLER}`,
named in `spec.ingressClassName` or in the annotation `kubernetes.io/ingress.class`; those that name none if such a
class is the default one.

| question | here |
| --- | --- |
| which path of several that match | exact ones first, then the longest |
| `Prefix` | whole elements: `/a` is `/a`, `/a/` and what is below, not `/ab` |
| `ImplementationSpecific` | as `Prefix`; with `use-regex` or `rewrite-target` an [expression](#expressions) |
| host with `*` | one label |
| rule without a host | for hosts that no Ingress names |
| `defaultBackend` | for paths of the object's hosts that nobody has; without rules, for hosts that no Ingress names |
| a path that two want | has the older; the other is told |
| a host that two namespaces want | has the older (`hostsAcrossNamespaces` lets several have it); the other is told |
| endpoints | those that are ready; where none is, those that end but still serve |
| no endpoint | 503 |
| Service of type ExternalName, backend of another kind | not served; the Ingress is told, and its path answers 503 |
| `Exact` with `/` at its end | a request without it is redirected there |
| certificate | of the Secret in `spec.tls`; without one, or if it is broken, one of nginx's own that no client trusts |
| key of more than {LONGEST_KEY} bits, Secret of more than {LARGEST >> 10} KiB | a broken certificate |
| HTTP where there is TLS | redirected with 308, unless `ssl-redirect` is `false` |
| body of a request | gathered on the disk first if `proxy-body-size` is at most `64m`, else passed on as it comes |
| answer | never on the disk; one larger than nginx's buffers comes as fast as the client reads |
| cookies of the gate's names (`__Secure-haneul-`, `__Host-haneul-`) | taken out of applications' answers |
| `X-Accel-Redirect` | not followed |
| answer without a head, or with 1xx (but 101 to a request with `Upgrade`) | the connection ends |
| towards clients | TLS 1.2 and 1.3 by SNI, HTTP/1.1, HTTP/2, WebSocket; gRPC over TLS |

Endpoints get `X-Request-ID`, `X-Real-IP`, `X-Forwarded-For`, `-Host`, `-Port` and `-Proto`, whatever a client wrote
into those; only proxies in `trustedProxies` are believed. `X-Haneul-User`, `X-Haneul-Email`, `X-Haneul-Groups` and
`X-Haneul-Projects` never come from a client, and no application sees the gate's session cookie.

## HTTPRoutes

Of the Gateway API (`gateway.networking.k8s.io/v1`), where a cluster has its definitions: GatewayClasses with
`spec.controllerName: {CONTROLLER}`, their Gateways, HTTPRoutes and ReferenceGrants (`v1beta1`). A cluster that gets
them later is served them then; one without is served its Ingress objects. [How to](../howto/serve-http-routes.md), [why
it is so](../decisions/0039-routes-of-the-gateway-api-and-acme.md).

| question | here |
| --- | --- |
| listener | `HTTP`, or `HTTPS` with mode `Terminate` |
| `HTTPS` without `certificateRefs` (without `tls`, or with `tls.options`) | hosts are certified as those of Ingress |
| the same where there is neither an issuer nor a platform | not served (`InvalidCertificateRef`) |
| plain HTTP at a host that only an `HTTPS` listener has | 404, but for what an issuer asks |
| its port | one of nginx's; 80 and 443 stand for whichever those are |
| host with `*` | any number of labels, in listeners and routes; the more precise of the two is served |
| `allowedRoutes` | `Same`, `All`, `Selector`; kind HTTPRoute |
| two listeners of a Gateway with one protocol and host | neither is served (`Conflicted`) |
| request for a host that two listeners have | for the more precise listener, never for the other's routes |
| matches | path `Exact` and `PathPrefix`, `headers` and `queryParams` `Exact`, `method` |
| which of several that match | see below |
| `backendRefs` | Services, of other namespaces with a ReferenceGrant; `weight` |
| backend that is none, rule without backends | 500 for its part of the requests |
| backend without endpoints | 503 |
| filters | `RequestHeaderModifier`, `ResponseHeaderModifier`, `RequestRedirect`, `URLRewrite` |
| headers that frame a message or say who somebody is | cannot be changed |
| other filters, filters of a backend | told; the rule, or the backend, answers an error |
| matches with expressions | told; that match is left out |
| `timeouts`, `retry`, `sessionPersistence` | told and left out |
| body of a request | no limit, passed on as it comes |
| host that an Ingress has too | the older one's alone; the other is told (`HostTaken`) |
| host that Gateways of two namespaces have | the one's with the oldest route, unless `hostsAcrossNamespaces` |
| without a reload | endpoints, backends, weights, changed headers |

Of several that match a request, the first by these is taken: most precise host, exact path, longest prefix, method,
most headers, most queries, oldest route, first rule. What has conditions that do not hold gives way to the next, also
of a shorter path or of a wider host of the same listener.

Statuses are those of the specification: GatewayClass `Accepted`; Gateway `Accepted`, `Programmed`, addresses; listeners
`Accepted`, `Programmed`, `ResolvedRefs`, `Conflicted`, how many routes; routes, for each parent, `Accepted`,
`ResolvedRefs` and `PartiallyInvalid`. Reasons besides its own are `HostTaken` and `HostRefused`.

## On the platform

| question | answer |
| --- | --- |
| class | `haneul`, which is the default one; every cluster has it |
| hosts | everything below `<cluster>.<project>.<zone>`, and what was granted by `haneul ingress grant` |
| address | one for each cluster, of the range in `/var/lib/haneul/ingress/range`; ports 80 and 443 |
| names | hosts below the cluster's domain are published by the [in-house DNS](dns.md) |
| certificate of a public host without one | of the [issuer](#certificates-of-an-issuer), if root named one |
| certificate of any other host | of the platform's authority (`haneul ingress authority`); renewed after 60 days |
| where requests go | to ports of the cluster's nodes, whatever endpoints say |
| Service without node ports | gets another one beside it, `haneul-ingress-…`, which is not yours to change |
| affinity by cookie | to a node |
| Service without a selector | served if it has node ports |
| `haneul.dev/auth` | the platform's own sign-on, at `auth.<zone>` |
| cluster that sleeps | 503 |
| masters, controller or management cluster that are dead | change nothing that is served |

## The file

| field | what | if left out |
| --- | --- | --- |
| `cluster` | the cluster's name, for logs | |
| `kubeconfig` | how it is reached; relative to this file | |
| `folder` | nginx's own folder; workers have to be able to enter it | |
| `http`, `https` | addresses and ports to listen at, as `0.0.0.0:80` and `[::]:80` | ports 80 and 443, IPv4 |
| `httpsPort` | the port of HTTPS that redirects name | that of the first address of `https` |
| `addresses` | addresses or names by which clients reach nginx, for the objects' status | |
| `hosts` | hosts that the cluster may serve; `*.example.com` is every name below | all |
| `hostsAcrossNamespaces` | whether several namespaces may have paths of one host | `false` |
| `gate.url` | the sign-on gate, as `http://ADDRESS:PORT` | nobody can sign on |
| `acme.directory` | the issuer of certificates (RFC 8555), as `https://HOST/PATH` | no certificates are asked for |
| `acme.termsOfServiceAgreed` | `true`: its terms are agreed to | |
| `acme.contact` | addresses of mail for the issuer | none |
| `acme.authorities` | PEM file with who signed the issuer's own server; relative to this file | the system's |
| `acme.externalAccount` | `id` and `keyFile` of an account that the issuer wants to know of | none |
| `trustedProxies` | balancers before nginx, as networks | none |
| `proxyProtocol` | whether those speak the PROXY protocol | `false` |
| `workers` | nginx's processes | 2 |
| `user` | whom they run as, if root starts nginx | `www-data` |
| `accessLog` | file for one JSON object a request; relative to `folder` | no log |
| `audit` | file of the [audit trail](audit-trail.md); relative to this file | none |
| `drainSeconds` | for how long connections go on after routes changed | 600 |
| `program`, `modules` | nginx, and its modules | Debian's |

## Annotations

Under `{PREFIX}` or, but for those marked ¹, `{OTHER_PREFIX}`; the first goes first. One that is wrong is told
and left out; one marked ² restricts access, so a wrong one closes the object's paths (503). So do those of
ingress-nginx that restrict and are not supported: {", ".join(f"`{name}`" for name in CLOSING)}. No annotation
carries configuration: there are no snippets.

| annotation | form | what | if left out |
| --- | --- | --- | --- |
"""

_TAIL: Final = f"""
| form | what |
| --- | --- |
| flag, switch | `true` or `false`; a switch also `on` or `off` |
| number | a whole number |
| seconds | a number from 1 to 86400, perhaps with `s` behind it |
| size | a number of bytes, perhaps with `k`, `m` or `g` behind it; at most `1024g` |
| host | letters, digits, `-` and `.` (RFC 1123) |
| address | `http` or `https`, a host, perhaps a port, a path and a query; redirects may end with `$request_uri` |
| origin | scheme, host and perhaps a port; `https://*.example.com` is one label more |
| path | the characters of RFC 3986 but quotes and `$` |
| network | an address, or one with a prefix length |
| name | letters, digits, `-` and `_`; cookies also `.`; people and groups also `.`, `@`, `+`, `/` and `:` |
| plural | several with commas between them, at most 256 |

`auth-url` names a Service of the Ingress's own namespace (`http://SERVICE.NAMESPACE.svc/PATH`), nothing else. 2xx lets
a request in, 401 and 403 do not; whatever else it answers, or if it does not, is 503. It and the gate get the request's
headers and cookies, `X-Original-Method`, `X-Original-URL`, `X-Original-URI` and `X-Original-Host`, no body. With
`auth-signin`, browsers (GET or HEAD that accept `text/html`) are sent there at 401, with `rd`, where they wanted to go.
The gate is asked at `/auth` with the names in `X-Haneul-Rule`, and at `/denied` what to answer whoever does not get in.
Of a canary's annotations only `canary-…` count; all else is as the path's own Ingress says. A cluster has at most
{MOST_LIMITS} limits (`limit-rps`, `limit-rpm`, `limit-connections`) in all; an Ingress that comes later with one is
told and closed.

## Certificates of an issuer

Hosts of an Ingress with `certificate: acme` get one certificate each, by HTTP-01: the issuer asks port 80 of the host,
so it has to reach nginx there. Below `/.well-known/acme-challenge/` nothing else is served at such a host. A Secret in
`spec.tls` goes first; hosts with `*` get none. [How to](../howto/certify-ingress-hosts.md).

| question | here |
| --- | --- |
| until there is a certificate | plain HTTP is served, and not redirected unless `spec.tls` has the host |
| an order | one at a time in a cluster; kept until its end: whoever comes after one that was killed goes on with it |
| renewed | after two thirds of its time, and up to a thirtieth more |
| refused | told with what the issuer said and what to do; what there was is served on; no other host waits for it |
| asked again | after a minute, then twice as long each time, up to 12 hours |
| `Retry-After` | held to, up to 7 days, also by whoever starts later |
| new certificate | a reload: connections go on, as with any change of routes |
| how many new ones | {MOST_NEW} hosts in {WINDOW.days} days, refused too; others wait, and are told |
| a host that goes | its certificate and order are deleted after {WINDOW.days} days |
| kept | in `acme` in nginx's folder, for the owner alone: the account's key, certificates with keys, orders, refusals |

On the platform no annotation is needed: once root has named an issuer (`haneul up --acme FILE`), all hosts that
clusters may serve and that it may be asked for get certificates of it. The file has the fields of `acme` above, at its
top, and `names`.

| question | on the platform |
| --- | --- |
| which hosts | those at or below `names`; without, all but those that end with a special-use name |
| special-use names | {", ".join(f"`{name}`" for name in sorted(SPECIAL))} |
| `spec.tls` names a Secret | not asked for, unless the annotation says so: the Secret may be on its way |
| how many at a time | {MOST_CERTIFIED} hosts of a cluster; the others are told |
| until there is a certificate, and when it ended | that of the platform's authority |
| who asks | one account of the host's for each directory; it outlives clusters |
| kept | by the host, for root alone ([files](files-and-ports.md)); nothing is in the cluster |

## Expressions

A part of PCRE: characters, `.`, classes, `\\d \\w \\s` and their opposites, groups, `|`, `^`, `$`, repetitions.
They begin at the path's start and ignore case. At most {LONGEST} characters, and {MOST_UNBOUNDED} repetitions without
bound; groups may be optional but not repeated, so that no request takes exponential time. No back references, no
look-around, no options.

## Events

What is wrong with an Ingress or an HTTPRoute is an event on it (`kubectl describe ingress`):

| reason | meaning |
| --- | --- |
"""


def ingress_page() -> str:
    """Return the whole page, as Markdown."""
    annotations = "".join(f"| {' | '.join(row)} |\n" for row in reference_rows())
    reasons = "".join(f"| `{reason}` | {meaning} |\n" for reason, meaning in MEANINGS.items())
    return f"{_HEAD}{annotations}{_TAIL}{reasons}"

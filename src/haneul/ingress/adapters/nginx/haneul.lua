-- Spreads requests over endpoints, from a table that is posted: endpoints come and go without a reload.
--
-- The table is kept as JSON in memory that all workers share, across reloads too, with a number that grows at each
-- change. A worker that sees another number than the one that it read reads it anew before it answers a request. A file
-- has the same table for when nginx starts and nobody is there to post it.

local balancer = require("ngx.balancer")
local json = require("cjson.safe")
local process = require("ngx.process")

local shared = ngx.shared.haneul
local table_file = ngx.config.prefix() .. "private/table.json"

local M = {}
local current, version = {}, 0
local turns = {}

local function keep(document)
    if shared:get("table") == document then
        return shared:get("version")
    end
    if type(json.decode(document)) ~= "table" then
        return nil, "it is no table"
    end
    local kept, why = shared:safe_set("table", document)
    if not kept then
        return nil, why
    end
    return shared:incr("version", 1, 0)
end

-- Before workers begin: take the table of the last time, unless there is a newer one already.
function M.start()
    if shared:get("version") then
        return
    end
    local file = io.open(table_file, "rb")
    if file then
        local document = file:read("*a")
        file:close()
        keep(document)
    end
end

local function entries()
    local now = shared:get("version") or 0
    if now ~= version then
        current = json.decode(shared:get("table") or "{}") or {}
        version = now
    end
    return current
end

-- Who serves, and how often the table was changed.
function M.state()
    ngx.say(json.encode({ master = process.get_master_pid(), version = shared:get("version") or 0 }))
end

-- Take a new table.
function M.point()
    ngx.req.read_body()
    local kept, why = keep(ngx.req.get_body_data() or "")
    if not kept then
        ngx.status = 507
        ngx.say(why)
        return
    end
    ngx.say(json.encode({ version = kept }))
end

local function cookie(name)
    local given = ngx.var["cookie_" .. name]
    return given ~= "" and given or nil
end

-- Which of two groups of peers a request goes to: header, then cookie, then a share of all.
local function is_canary(canary, draw)
    if canary.header then
        local given = ngx.req.get_headers()[canary.header]
        if type(given) == "table" then
            given = given[1]
        end
        if canary.value then
            if given == canary.value then
                return true
            end
        elseif given == "always" then
            return true
        elseif given == "never" then
            return false
        end
    end
    if canary.cookie then
        local given = cookie(canary.cookie)
        if given == "always" then
            return true
        elseif given == "never" then
            return false
        end
    end
    return draw(canary.total) < canary.weight
end

-- The peer with the highest number for a session (rendezvous hashing): whichever comes or goes moves only its own.
local function ranked(peers, session, tried)
    local best, highest
    for _, peer in ipairs(peers) do
        local name = peer[1] .. " " .. peer[2]
        if not tried[name] then
            local number = ngx.crc32_short(session .. " " .. name)
            if not highest or number > highest then
                best, highest = peer, number
            end
        end
    end
    return best
end

local function next_in_turn(peers, turn, tried)
    for _ = 1, #peers do
        local at = (turns[turn] or math.random(#peers)) % #peers + 1
        turns[turn] = at
        local peer = peers[at]
        if not tried[peer[1] .. " " .. peer[2]] then
            return peer
        end
    end
end

local function refuse()
    ngx.header["Retry-After"] = "5"
    return ngx.exit(ngx.HTTP_SERVICE_UNAVAILABLE)
end

local function as_text(value)
    if type(value) == "table" then
        return table.concat(value, ", ")
    end
    return value == true and "" or value
end

-- Whether all of some names and values are among the given; of a query that comes twice the first counts.
local function are_given(wanted, given, text)
    for _, pair in ipairs(wanted) do
        local value = given[pair[1]]
        if value == nil or text(value) ~= pair[2] then
            return false
        end
    end
    return true
end

local function first_text(value)
    return as_text(type(value) == "table" and value[1] or value)
end

-- Choose among the rules of a path: the first one whose conditions a request meets.
function M.pick(name)
    local entry = entries()[name]
    if not entry then
        return refuse()
    end
    local method = ngx.req.get_method()
    local headers, queries = ngx.req.get_headers(0), ngx.req.get_uri_args(0)
    for _, choice in ipairs(entry.choices) do
        if (choice.method == "" or choice.method == method)
            and are_given(choice.headers, headers, as_text)
            and are_given(choice.queries, queries, first_text) then
            return ngx.exec(choice.at)
        end
    end
    return ngx.exit(ngx.HTTP_NOT_FOUND)
end

-- What a path becomes: another one, or one with another prefix.
local function changed(change, path)
    if not change.of then
        return change.to
    end
    local new = change.to .. path:sub(#change.of + 1)
    return new ~= "" and new or "/"
end

local function added(there, value)
    if there == nil then
        return value
    end
    local values = type(there) == "table" and { unpack(there) } or { there }
    values[#values + 1] = value
    return values
end

-- Change headers, with whatever reads, writes and takes away one.
local function change_headers(changes, read, write, clear)
    for _, pair in ipairs(changes.set) do
        write(pair[1], pair[2])
    end
    for _, pair in ipairs(changes.add) do
        write(pair[1], added(read(pair[1]), pair[2]))
    end
    for _, name in ipairs(changes.remove) do
        clear(name)
    end
end

local function read_header(name)
    return ngx.req.get_headers(0)[name]
end

-- The part of a rule's requests that this one is of; each part has its weight.
local function share_of(shares)
    local total = 0
    for _, share in ipairs(shares) do
        total = total + share.weight
    end
    local draw = total > 0 and math.random(total) or 0
    for number, share in ipairs(shares) do
        draw = draw - share.weight
        if draw <= 0 then
            return share, number
        end
    end
end

-- Decide which backend a request goes to by a rule, and change it as the rule says.
local function obey(entry, name)
    ngx.ctx.haneul_rule = entry
    local share, number = share_of(entry.shares)
    if not share or share.missing then
        return ngx.exit(ngx.HTTP_INTERNAL_SERVER_ERROR)
    end
    if #share.peers == 0 then
        return refuse()
    end
    if entry.path then
        ngx.req.set_uri(changed(entry.path, ngx.var.uri), false, true)
    end
    change_headers(entry.request, read_header, ngx.req.set_header, ngx.req.clear_header)
    ngx.ctx.haneul = { peers = share.peers, turn = name .. " " .. number, tried = {} }
end

local function read_answered(name)
    return ngx.header[name]
end

local function write_answered(name, value)
    ngx.header[name] = value
end

-- Whether a cookie is of the sign-on gate's names. One without a name is sent back as its value alone.
local function is_gates(cookie)
    local text = cookie:lower()
    return text:find("^[%s=]*__secure%-haneul%-") or text:find("^[%s=]*__host%-haneul%-")
end

-- Let no application set a cookie of the gate's: it would sign people on as somebody else. The gate's own are added
-- later (add_header), or come from locations without this. At most 100 are read, and no others sent.
function M.guard()
    -- Neither an answer without a head nor an interim one: what follows would be read as a head that nobody looked at.
    local switched = ngx.status == ngx.HTTP_SWITCHING_PROTOCOLS and ngx.var.http_upgrade
    if ngx.req.http_version() == 0.9 or (ngx.status < 200 and not switched) then
        return ngx.exit(ngx.ERROR)
    end
    local there = ngx.header["Set-Cookie"]
    if there == nil then
        return
    end
    local kept = {}
    for _, cookie in ipairs(type(there) == "table" and there or { there }) do
        if not is_gates(cookie) then
            kept[#kept + 1] = cookie
        end
    end
    ngx.header["Set-Cookie"] = kept
end

-- Change the headers of an answer as the rule says that the request went by.
function M.answer()
    local entry = ngx.ctx.haneul_rule
    if entry then
        change_headers(entry.answer, read_answered, write_answered, write_answered)
    end
    return M.guard()
end

-- Tell an issuer of certificates what it wants to find here.
function M.challenge()
    local token = ngx.var.uri:match("^/%.well%-known/acme%-challenge/([%w_-]+)$")
    local text = token and (entries().challenges or {})[token]
    if not text then
        return ngx.exit(ngx.HTTP_NOT_FOUND)
    end
    ngx.header["Content-Type"] = "application/octet-stream"
    ngx.print(text)
end

-- Send a client elsewhere.
function M.redirect(name)
    local entry = entries()[name]
    if not entry or not entry.redirect then
        return refuse()
    end
    ngx.ctx.haneul_rule = entry
    local wanted = entry.redirect
    local scheme = wanted.scheme or ngx.var.haneul_scheme
    local port = wanted.port
    if (wanted.port_of and wanted.port_of ~= scheme) or port == (scheme == "https" and 443 or 80) then
        port = nil
    end
    local path = ngx.var.request_uri
    if wanted.path then
        path = ngx.escape_uri(changed(wanted.path, ngx.var.uri), 0) .. ngx.var.is_args .. (ngx.var.args or "")
    end
    local host = (wanted.host or ngx.var.host) .. (port and ":" .. port or "")
    return ngx.redirect(scheme .. "://" .. host .. path, wanted.status)
end

-- Decide where a request goes, before it is sent: to which group of peers, by which session.
function M.choose(name)
    local entry = entries()[name]
    if not entry then
        return refuse()
    end
    if entry.shares then
        return obey(entry, name)
    end
    local chosen = { peers = entry.peers, turn = name, tried = {} }
    local draw = function(total)
        return math.random(total) - 1
    end
    if entry.affinity then
        chosen.affinity = entry.affinity
        chosen.session = cookie(entry.affinity.name)
        if not chosen.session or not chosen.session:match("^%x+$") or #chosen.session ~= 32 then
            chosen.session = ngx.md5(ngx.var.request_id .. " session")
            chosen.new = true
        end
        draw = function(total)
            return ngx.crc32_short(chosen.session .. " canary") % total
        end
    end
    if entry.canary and #entry.canary.peers > 0 and is_canary(entry.canary, draw) then
        chosen.peers, chosen.turn = entry.canary.peers, name .. " canary"
    end
    if #chosen.peers == 0 then
        return refuse()
    end
    ngx.ctx.haneul = chosen
end

-- Name the peer for this try; one that failed is not asked again while there are others.
function M.balance()
    local chosen = ngx.ctx.haneul
    if not chosen then
        return ngx.exit(ngx.ERROR)
    end
    local pick = function(tried)
        if chosen.session then
            return ranked(chosen.peers, chosen.session, tried)
        end
        return next_in_turn(chosen.peers, chosen.turn, tried)
    end
    local peer = pick(chosen.tried)
    if not peer then
        chosen.tried = {}
        peer = pick(chosen.tried)
    end
    if not chosen.began then
        chosen.began = true
        if #chosen.peers > 1 then
            balancer.set_more_tries(#chosen.peers - 1)
        end
    end
    chosen.tried[peer[1] .. " " .. peer[2]] = true
    local set, why = balancer.set_current_peer(peer[1], peer[2])
    if not set then
        ngx.log(ngx.ERR, "no endpoint could be set: ", why)
        return ngx.exit(ngx.ERROR)
    end
end

-- Give a new session to who has none.
local function remember()
    local chosen = ngx.ctx.haneul
    if not chosen or not chosen.new then
        return
    end
    local made = chosen.affinity.name .. "=" .. chosen.session .. chosen.affinity.attributes
    if chosen.affinity.secure or ngx.var.haneul_scheme == "https" then
        made = made .. "; Secure"
    end
    local there = ngx.header["Set-Cookie"]
    if type(there) == "table" then
        there[#there + 1] = made
    else
        there = there and { there, made } or made
    end
    ngx.header["Set-Cookie"] = there
end

function M.remember()
    remember()
    return M.guard()
end

-- Send browsers to where people sign on, and tell programs that somebody has to.
function M.sign_in()
    local method, accepted = ngx.req.get_method(), ngx.var.http_accept or ""
    if (method ~= "GET" and method ~= "HEAD") or not accepted:find("text/html", 1, true) then
        return ngx.exit(ngx.HTTP_UNAUTHORIZED)
    end
    local place = ngx.var.haneul_sign_in
    local wanted = ngx.var.haneul_scheme .. "://" .. ngx.var.haneul_host .. ngx.var.request_uri
    local mark = place:find("?", 1, true) and "&" or "?"
    ngx.header["Cache-Control"] = "no-store"
    return ngx.redirect(place .. mark .. "rd=" .. ngx.escape_uri(wanted), ngx.HTTP_MOVED_TEMPORARILY)
end

return M

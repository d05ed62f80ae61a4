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

-- Decide where a request goes, before it is sent: to which group of peers, by which session.
function M.choose(name)
    local entry = entries()[name]
    if not entry then
        return refuse()
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
function M.remember()
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

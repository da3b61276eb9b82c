package access

import "github.com/synmesh/synmesh/internal/identity"

// rule says who may call a method.
type rule uint8

const (
	anybody  rule = iota + 1 // who shows nothing, too
	renewing                 // agents, even if their certificate has expired
	agents                   // agents
	members                  // whoever belongs to the fleet
	viewers                  // people: those who may read
	operators
	admins
)

// Metrics is the page of metrics, which is served by HTTP alone; see Guard.Check.
const Metrics = "/metrics"

// rules are who may call what. A method that is not here is refused to everybody;
// a test of package api sees to it that all are.
var rules = map[string]rule{
	"/synmesh.v1.EnrolmentService/Enroll":   anybody,
	"/synmesh.v1.EnrolmentService/Renew":    renewing,
	"/synmesh.v1.EnrolmentService/Announce": agents,
	"/synmesh.v1.EnrolmentService/Follow":   agents,
	"/synmesh.v1.AgentService/Session":      agents,

	"/grpc.health.v1.Health/Check": members,
	"/grpc.health.v1.Health/List":  members,
	"/grpc.health.v1.Health/Watch": members,

	"/synmesh.v1.IdentityService/WhoAmI":           members,
	"/synmesh.v1.IdentityService/ListMembers":      viewers,
	"/synmesh.v1.IdentityService/ListUsers":        admins,
	"/synmesh.v1.IdentityService/ListTokens":       admins,
	"/synmesh.v1.IdentityService/ListAuditEntries": admins,
	"/synmesh.v1.IdentityService/CreateToken":      admins,
	"/synmesh.v1.IdentityService/RevokeToken":      admins,
	"/synmesh.v1.IdentityService/BanAgent":         admins,
	"/synmesh.v1.IdentityService/UnbanAgent":       admins,
	"/synmesh.v1.IdentityService/UnlockAgent":      admins,
	"/synmesh.v1.IdentityService/RotateGossipKeys": admins,
	"/synmesh.v1.IdentityService/CreateUser":       admins,
	"/synmesh.v1.IdentityService/RevokeUser":       admins,

	"/synmesh.v1.BackupService/Backup": admins,

	"/synmesh.v1.FleetService/ListAgents":               viewers,
	"/synmesh.v1.ResultService/ListResults":             viewers,
	"/synmesh.v1.ResultService/Matrix":                  viewers,
	"/synmesh.v1.ResultService/Query":                   viewers,
	"/synmesh.v1.ResultService/Watch":                   viewers,
	"/synmesh.v1.ResultService/Export":                  viewers,
	"/synmesh.v1.MeasurementService/ListMeasurements":   viewers,
	"/synmesh.v1.MeasurementService/GetMeasurement":     viewers,
	"/synmesh.v1.MeasurementService/GetTimetable":       viewers,
	"/synmesh.v1.MeasurementService/ApplyMeasurements":  operators,
	"/synmesh.v1.MeasurementService/DeleteMeasurements": operators,
	"/synmesh.v1.RunService/Run":                        operators,
	"/synmesh.v1.RunService/Attend":                     operators,

	Metrics: viewers,

	"/grpc.reflection.v1.ServerReflection/ServerReflectionInfo":      viewers,
	"/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": viewers,
}

// Methods returns the methods of gRPC that there are rules for.
func Methods() []string {
	var names []string
	for name := range rules {
		if name != Metrics {
			names = append(names, name)
		}
	}
	return names
}

// lets tells whether the rule lets somebody call who belongs to the fleet.
func (r rule) lets(id identity.Identity) bool {
	switch r {
	case anybody, members:
		return true
	case renewing, agents:
		return id.Kind == identity.Agent
	case viewers:
		return id.Kind == identity.User && id.Role >= identity.Viewer
	case operators:
		return id.Kind == identity.User && id.Role >= identity.Operator
	case admins:
		return id.Kind == identity.User && id.Role >= identity.Admin
	}
	return false
}

// String completes "this is for ...".
func (r rule) String() string {
	switch r {
	case anybody:
		return "anybody"
	case renewing, agents:
		return "agents"
	case members:
		return "members of the fleet"
	case viewers:
		return "people who may read (viewer, operator or admin)"
	case operators:
		return "people who may measure (operator or admin)"
	case admins:
		return "admins"
	}
	return "nobody"
}
